"""Latency histograms: close to the truth, and the same however they were gathered."""

from __future__ import annotations

import random

from edgefleet_agent.serving.counts import Counts, pack_counts, unpack_counts
from edgefleet_agent.serving.latency import Latencies, pack, unpack


def gathered(values: list[int]) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies


def test_quantiles_are_within_five_percent() -> None:
    values = [int(random.Random(i).lognormvariate(7, 1)) + 50 for i in range(5000)]
    latencies = gathered(values)
    for share in (0.01, 0.5, 0.95, 0.99):
        exact = sorted(values)[int(share * len(values))]
        assert abs(latencies.quantile(share) - exact) < 0.05 * exact
    assert latencies.total_us == sum(values)


def test_merging_is_the_same_as_gathering_together() -> None:
    left, right = gathered([1, 10, 100]), gathered([100, 5000])
    left.merge(right)
    assert left == gathered([1, 10, 100, 100, 5000])
    assert unpack(pack(left)) == left


def test_nothing_gathered_is_zero() -> None:
    assert Latencies().quantile(0.5) == 0


def test_within_counts_what_a_prometheus_bucket_holds() -> None:
    latencies = gathered([90, 900, 1_000, 9_000_000])
    assert [latencies.within(us) for us in (100, 1000, 5_000_000)] == [1, 3, 3]


def test_counts_tell_the_clients_mistakes_from_our_failures() -> None:
    counts = Counts()
    for status in (200, 200, 400, 413, 500, 503, 504):
        counts.count(status, 1000)
    assert (counts.requests, counts.failures, counts.latencies.count) == (7, 3, 2)
    assert unpack_counts(pack_counts(counts)) == counts  # type: ignore[arg-type]  # as JSON gives it
