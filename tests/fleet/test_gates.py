"""When to stop and when to go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.gates import (
    Counts,
    GatePolicy,
    has_ended,
    objection,
    tripped,
    wilson_lower,
)
from edgefleet_fleet.rollout_states import Cause


@pytest.mark.parametrize(
    ("bad", "n", "bound"),
    [
        # Values of R's prop.test(bad, n, correct = FALSE)$conf.int[1].
        (0, 0, 0.0),
        (0, 10, 0.0),
        (3, 3, 0.4385),
        (5, 10, 0.2366),
        (3, 100, 0.0103),
        (30, 100, 0.2189),
    ],
)
def test_the_wilson_bound_has_its_published_values(bad: int, n: int, bound: float) -> None:
    assert wilson_lower(bad, n) == pytest.approx(bound, abs=5e-5)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_wilson_bound_stays_below_the_share_and_never_negative(bad: int, more: int) -> None:
    n = bad + more
    assert 0.0 <= wilson_lower(bad, n) <= bad / n + 1e-12


def trip(policy: GatePolicy, canaries: Counts = Counts(), **counts: int) -> Cause | None:  # noqa: B008 - it is frozen
    found = tripped(policy, Counts(**counts), {}, canaries=canaries)
    return found.cause if found is not None else None


@pytest.mark.parametrize(
    ("counts", "stops"),
    [
        ({"bad": 2}, False),
        ({"bad": 3}, True),
        ({"silent": 3}, True),
        ({"good": 97, "bad": 3}, False),
        ({"good": 90, "bad": 10}, True),
        ({"good": 97, "bad": 10, "excused": 8}, False),
        ({"bad": 3, "at_work": 50}, True),
    ],
)
def test_it_takes_some_failures_and_a_share_that_is_no_chance(
    counts: dict[str, int], stops: bool
) -> None:
    assert (trip(GatePolicy(), **counts) is Cause.GATE) is stops


def test_one_failure_among_canaries_stops_it() -> None:
    assert trip(GatePolicy(), canaries=Counts(good=9, bad=1), good=9, bad=1) is Cause.GATE
    assert trip(GatePolicy(canary_failures=0), canaries=Counts(bad=1), bad=1) is None


def test_a_limit_of_ones_own_counts_in_every_wave() -> None:
    assert trip(GatePolicy(max_failures=2), bad=1) is None
    assert trip(GatePolicy(max_failures=2), good=1000, bad=2) is Cause.GATE


def test_the_gate_looks_at_every_hardware_class() -> None:
    well, ill = Counts(good=1000), Counts(good=2, bad=4)
    found = tripped(GatePolicy(), well + ill, {"Pi 5": well, "Pi 3": ill}, canaries=Counts())
    assert found is not None
    assert found.why.startswith("of Pi 3, 4 of 6 devices failed")


def test_a_wave_does_not_end_while_a_device_is_still_at_it() -> None:
    for counts in (Counts(good=9, unheard=1), Counts(good=9, at_work=1), Counts(good=9, unasked=1)):
        assert not has_ended(GatePolicy(), counts, counts)
    assert has_ended(GatePolicy(), Counts(good=9), Counts(good=9))


def test_with_a_sample_it_ends_without_those_that_never_answered() -> None:
    off = Counts(good=9, unheard=5)
    assert has_ended(GatePolicy(min_sample=9), off, off)
    assert not has_ended(GatePolicy(min_sample=9), off, Counts(good=8, unheard=5))


def test_a_wave_does_not_pass_with_too_few_good_devices() -> None:
    assert objection(GatePolicy(), Counts(good=2, bad=1)) is not None
    assert objection(GatePolicy(), Counts(good=9, bad=1)) is None
    assert objection(GatePolicy(), Counts(good=2, bad=1, excused=1)) is None


def test_a_wave_that_most_could_not_fetch_does_not_pass_either() -> None:
    found = objection(GatePolicy(), Counts(good=1, undelivered=1))
    assert found is not None
    assert found.cause is Cause.BUDGET


@pytest.mark.parametrize(
    "more", [{"max_failures": 0}, {"limit": 2.0}, {"pass_ratio": 0.0}, {"silence_s": 0}]
)
def test_a_policy_that_makes_no_sense_is_refused(more: dict[str, float]) -> None:
    with pytest.raises(Malformed):
        GatePolicy(**more)  # type: ignore[arg-type]
