"""Kinds of examples that a person brings beside arrays in files, one file each."""
