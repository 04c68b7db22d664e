"""What a canary's report is worth."""

from __future__ import annotations

import re

import pytest

from edgefleet_agent.canarying import canary_measurements, canary_objection
from edgefleet_agent.ports import CanaryReport
from edgefleet_contract.order_policy import Canary

GOOD = CanaryReport(
    requests=100,
    serving_requests=900,
    serving_p50_us=1_000,
    serving_p95_us=2_000,
    candidate_p50_us=1_000,
    candidate_p95_us=3_000,
    share=0.1,
    seconds=600.0,
    enough=True,
)
FAILING = CanaryReport(requests=100, failures=3, serving_requests=900, serving_failures=1)


@pytest.mark.parametrize(
    ("report", "asked", "objection"),
    [
        (GOOD, Canary(600, min_requests=100, max_p95_percent=150), ""),
        (GOOD, Canary(600), ""),
        (GOOD, Canary(600, min_requests=101), "it was asked 100 times, 101 are asked for"),
        (
            GOOD,
            Canary(600, max_p95_percent=149),
            "p95 is 3.0 ms, that of the model that serves 2.0",
        ),
        (FAILING, Canary(600, max_failures=3), ""),
        (FAILING, Canary(600, max_failures=2), "failed 3 of 100 requests, .* serves 1 of 900"),
        (CanaryReport(), Canary(600, max_p95_percent=100), ""),
        (CanaryReport(), Canary(600, min_requests=1), "asked 0 times"),
        (CanaryReport(requests=9, candidate_p95_us=5), Canary(600, max_p95_percent=100), ""),
    ],
)
def test_it_may_serve_where_it_did_as_the_policy_asks(
    report: CanaryReport, asked: Canary, objection: str
) -> None:
    found = canary_objection(report, asked)
    if objection:
        assert re.search(objection, found), found
    else:
        assert found == ""


def test_its_figures_are_told() -> None:
    told = canary_measurements(GOOD)
    assert (told["canary_requests"], told["canary_failures"], told["canary_s"]) == (100, 0, 600)
    assert (told["canary_serving_p95_us"], told["canary_candidate_p95_us"]) == (2_000, 3_000)
    assert all(isinstance(value, float) for value in told.values())
