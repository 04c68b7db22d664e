"""What a shadow's report is worth: whether the candidate may serve, and the figures that are told.

Core: values in, values out.
"""

from __future__ import annotations

from edgefleet_agent.ports import ShadowReport
from edgefleet_contract.order_policy import Shadow


def shadow_objection(report: ShadowReport, asked: Shadow) -> str:
    """Why the candidate may not serve by what the policy asks; empty where it may.

    A copy that the candidate answered with an error disagrees.
    """
    if report.requests < asked.min_requests:
        return f"{report.requests} requests were compared, {asked.min_requests} are asked for"
    compared = report.judged + report.errors
    share = report.agreements / compared if compared else 1.0
    if share * 100 < asked.min_agreement_percent:
        return (
            f"{report.agreements} of {compared} answers agree with those of the model that serves"
        )
    return ""


def shadow_measurements(report: ShadowReport) -> dict[str, float]:
    """The figures of an event [wire-3.8]."""
    found = {
        "shadow_requests": float(report.requests),
        "shadow_judged": float(report.judged),
        "shadow_errors": float(report.errors),
        "shadow_max_abs_diff": report.max_abs_diff,
        "shadow_mean_abs_diff": report.mean_abs_diff,
        "shadow_serving_p95_us": float(report.serving_p95_us),
        "shadow_candidate_p95_us": float(report.candidate_p95_us),
        "shadow_cpu_s": report.cpu_s,
    }
    agreement = report.agreement
    return found if agreement is None else {**found, "shadow_agreement": agreement}
