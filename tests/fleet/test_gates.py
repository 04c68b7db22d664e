"""When to stop and when to go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_fleet.gates import Counts, GatePolicy, has_passed, has_tripped, wilson_lower


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


def test_one_failure_stops_an_early_wave() -> None:
    assert has_tripped(GatePolicy(), Counts(good=9, bad=1), is_last_wave=False)


def test_two_failures_do_not_stop_the_last_wave_by_themselves() -> None:
    assert not has_tripped(GatePolicy(), Counts(good=0, bad=2), is_last_wave=True)


def test_three_of_three_failures_stop_the_last_wave() -> None:
    assert has_tripped(GatePolicy(), Counts(bad=3), is_last_wave=True)


def test_three_failures_of_a_hundred_do_not_stop_the_last_wave() -> None:
    assert not has_tripped(GatePolicy(), Counts(good=97, bad=3), is_last_wave=True)


def test_a_limit_of_ones_own_counts_in_every_wave() -> None:
    policy = GatePolicy(max_failures=2)
    assert not has_tripped(policy, Counts(bad=1), is_last_wave=False)
    assert has_tripped(policy, Counts(good=1000, bad=2), is_last_wave=True)


def test_acknowledged_failures_do_not_stop_it_again() -> None:
    assert not has_tripped(GatePolicy(), Counts(bad=1, excused=1), is_last_wave=False)
    assert has_tripped(GatePolicy(), Counts(bad=2, excused=1), is_last_wave=False)


def test_a_wave_does_not_pass_while_a_device_is_still_at_it() -> None:
    assert not has_passed(GatePolicy(), Counts(good=99, waiting=1))


def test_a_wave_does_not_pass_with_too_few_good_devices() -> None:
    assert not has_passed(GatePolicy(), Counts(good=2, bad=1))
    assert has_passed(GatePolicy(), Counts(good=9, bad=1))
    assert has_passed(GatePolicy(), Counts(good=2, bad=1, excused=1))
