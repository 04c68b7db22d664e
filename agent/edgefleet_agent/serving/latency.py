"""Latencies as counts in buckets that grow by 2^(1/8): bounded memory, 4 % of error, mergeable.

Buckets are numbers, so that a histogram crosses the control channel as a small JSON object.
Law: merging histograms and then asking is asking the histogram of everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

_PER_OCTAVE: Final = 8


@dataclass(slots=True)
class Latencies:
    """How many requests took about how long, µs. `total_us` is exact."""

    buckets: dict[int, int] = field(default_factory=dict)
    count: int = 0
    total_us: int = 0

    def add(self, microseconds: int) -> None:
        """Count one."""
        bucket = math.ceil(math.log2(max(1, microseconds)) * _PER_OCTAVE)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.total_us += microseconds

    def merge(self, other: Latencies) -> None:
        """Count all that another counted."""
        for bucket, n in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + n
        self.count += other.count
        self.total_us += other.total_us

    def quantile(self, share: float) -> int:
        """The latency that this share of requests kept within, µs; 0 if there were none."""
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= share * self.count:
                # The middle of the bucket, so that the error goes both ways.
                return round(2 ** ((bucket - 0.5) / _PER_OCTAVE))
        return 0

    def within(self, microseconds: int) -> int:
        """How many took at most so long, to the nearest bucket."""
        last = math.ceil(math.log2(microseconds) * _PER_OCTAVE)
        return sum(n for bucket, n in self.buckets.items() if bucket <= last)


def pack(latencies: Latencies) -> dict[str, object]:
    """The JSON object of a histogram."""
    buckets = {str(bucket): n for bucket, n in latencies.buckets.items()}
    return {"buckets": buckets, "count": latencies.count, "total_us": latencies.total_us}


def unpack(value: dict[str, object]) -> Latencies:
    """The histogram of a JSON object of ours."""
    buckets, count, total = value["buckets"], value["count"], value["total_us"]
    assert isinstance(buckets, dict)
    assert isinstance(count, int)
    assert isinstance(total, int)
    return Latencies({int(key): n for key, n in buckets.items()}, count, total)
