"""Evidence that may be looked at after every message, by simulation and by its own laws."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from edgefleet_fleet.sequential import log_e_mean_below, log_e_other_shares, log_e_rate_above

ALPHA = 0.05
BAR = math.log(1 / ALPHA)
RUNS, LOOKS, BATCH = 300, 40, 25
SHARES = (0.5, 0.3, 0.15, 0.05)
Test = Callable[[list[int]], bool]


def alarms(chances: tuple[float, ...], is_alarm: Test, *, seed: int = 1) -> float:
    """The share of runs in which one of the looks alarms; draws are counted by category."""
    rng = random.Random(seed)
    stopped = 0
    for _ in range(RUNS):
        counts = [0] * len(chances)
        for _ in range(LOOKS):
            for drawn in rng.choices(range(len(chances)), chances, k=BATCH):
                counts[drawn] += 1
            if is_alarm(counts):
                stopped += 1
                break
    return stopped / RUNS


def z_test(limit: float) -> Test:
    """The usual one-sided test at 5 %, which is right for one look."""

    def is_alarm(counts: list[int]) -> bool:
        n = sum(counts)
        return counts[1] / n > limit + 1.6449 * math.sqrt(limit * (1 - limit) / n)

    return is_alarm


def rate_above(limit: float) -> Test:
    return lambda counts: log_e_rate_above(counts[1], sum(counts), limit) >= BAR


def test_a_fixed_test_that_is_repeated_stops_a_good_model_and_this_one_does_not() -> None:
    naive = alarms((0.95, 0.05), z_test(0.05))
    ours = alarms((0.95, 0.05), rate_above(0.05))
    assert naive > 0.2
    assert ours <= ALPHA


def test_it_still_sees_what_is_bad() -> None:
    assert alarms((0.88, 0.12), rate_above(0.05)) > 0.95


def test_a_drop_of_the_mean_is_seen_and_chance_is_not() -> None:
    def is_alarm(counts: list[int]) -> bool:
        return log_e_mean_below(counts, 0.75) >= BAR

    assert alarms((0.0, 0.0, 1.0, 1.0), is_alarm) <= ALPHA
    assert alarms((0.3, 0.3, 0.2, 0.2), is_alarm) > 0.95


def test_other_shares_are_seen_and_chance_is_not() -> None:
    def is_alarm(counts: list[int]) -> bool:
        return log_e_other_shares(counts, SHARES) >= BAR

    assert alarms(SHARES, is_alarm) <= ALPHA
    assert alarms((0.3, 0.3, 0.2, 0.2), is_alarm) > 0.95


def test_evidence_is_an_expectation_of_at_most_one() -> None:
    """Exactly, over all outcomes of ten trials: that is what makes it evidence."""
    for limit, rate in ((0.1, 0.1), (0.1, 0.03), (0.5, 0.5)):
        mean = sum(
            math.comb(10, k)
            * rate**k
            * (1 - rate) ** (10 - k)
            * math.exp(log_e_rate_above(k, 10, limit))
            for k in range(11)
        )
        assert mean <= 1 + 1e-9
    mean = sum(
        math.comb(10, k)
        * 0.3**k
        * 0.7 ** (10 - k)
        * math.exp(log_e_other_shares((k, 10 - k), (0.3, 0.7)))
        for k in range(11)
    )
    assert mean == pytest.approx(1.0)


def test_without_a_sample_there_is_no_evidence() -> None:
    assert log_e_rate_above(0, 0, 0.1) == 0.0
    assert log_e_mean_below((), 0.5) == 0.0
    assert log_e_other_shares((0, 0), (0.5, 0.5)) == pytest.approx(0.0)
    assert log_e_rate_above(1, 10, 0.0) == math.inf
    assert log_e_rate_above(9, 10, 1.0) == 0.0
