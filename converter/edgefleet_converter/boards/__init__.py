"""Measurement on boards: what is sent to which, by which way, and what comes of their figures.

places ──▶ packing ──▶ asking ──▶ ssh | https | here ──▶ figures ──▶ limits, ranking, report
"""
