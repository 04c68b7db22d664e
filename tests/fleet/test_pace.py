"""How fast devices are asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.pace import FULL, Bucket, Pace


def test_the_rate_rises_with_the_devices_that_ended_well_up_to_its_end() -> None:
    pace = Pace(per_minute=10, factor=2.0, every=100, max_per_minute=60)
    assert [pace.rate(good) for good in (0, 99, 100, 250, 300, 10**9)] == [10, 10, 20, 40, 60, 60]
    assert Pace().rate(5) == 0


def test_after_a_long_rest_no_more_than_ten_seconds_of_starts_come_at_once() -> None:
    bucket = FULL.filled(60.0, 100)
    assert bucket.whole == 10
    assert bucket.take(10).filled(60.0, 10_000).whole == 10


def test_a_slow_pace_still_starts_one_and_says_when_the_next_is_due() -> None:
    bucket = FULL.filled(1.0, 100).take(1)
    assert (bucket.whole, bucket.next_at(1.0)) == (0, 160)
    assert bucket.filled(1.0, 159).whole == 0
    assert bucket.filled(1.0, 160).whole == 1


@given(st.floats(1, 600), st.lists(st.integers(-5, 90), max_size=30))
def test_whatever_the_clock_does_no_more_start_than_the_rate_allows(
    rate: float, steps: list[int]
) -> None:
    bucket, now, started = FULL, 1000, 0
    latest = now
    for step in (0, *steps):
        now += step
        latest = max(latest, now)
        bucket = bucket.filled(rate, now)
        started += bucket.whole
        bucket = bucket.take(bucket.whole)
        assert isinstance(bucket, Bucket)
    assert started <= max(1.0, rate / 6) + (latest - 1000) * rate / 60 + 1e-6


@pytest.mark.parametrize("more", [{"at_once": -1}, {"factor": 0.5}, {"factor": 2.0}])
def test_a_pace_that_makes_no_sense_is_refused(more: dict[str, float]) -> None:
    with pytest.raises(Malformed):
        Pace(**more)  # type: ignore[arg-type]
