"""What a canary's report is worth: whether the candidate may serve, and the figures that are told.

Core: values in, values out.
"""

from __future__ import annotations

from edgefleet_agent.ports import CanaryReport
from edgefleet_contract.order_policy import Canary


def canary_objection(report: CanaryReport, asked: Canary) -> str:
    """Why the candidate may not serve by what the policy asks; empty where it may.

    Latencies are held against each other only where both versions have some.
    """
    if report.failures > asked.max_failures:
        return (
            f"it failed {report.failures} of {report.requests} requests,"
            f" the model that serves {report.serving_failures} of {report.serving_requests}"
        )
    if report.requests < asked.min_requests:
        return f"it was asked {report.requests} times, {asked.min_requests} are asked for"
    allowed_us = report.serving_p95_us * asked.max_p95_percent / 100
    if 0 < allowed_us < report.candidate_p95_us:
        return (
            f"its p95 is {report.candidate_p95_us / 1000:.1f} ms, that of the model that serves"
            f" {report.serving_p95_us / 1000:.1f} ms"
        )
    return ""


def canary_measurements(report: CanaryReport) -> dict[str, float]:
    """The figures of an event."""
    return {
        "canary_requests": float(report.requests),
        "canary_failures": float(report.failures),
        "canary_share": report.share,
        "canary_s": report.seconds,
        "canary_serving_requests": float(report.serving_requests),
        "canary_serving_failures": float(report.serving_failures),
        "canary_serving_p50_us": float(report.serving_p50_us),
        "canary_serving_p95_us": float(report.serving_p95_us),
        "canary_candidate_p50_us": float(report.candidate_p50_us),
        "canary_candidate_p95_us": float(report.candidate_p95_us),
    }
