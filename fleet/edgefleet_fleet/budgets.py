"""How many calls a user may make: a bucket for each, that time fills again.

Pure: the time is an argument. The limit is for clients that went wild, not for work: its default
is more than a dashboard and a pipeline together ask for. Only users that are known are counted, so
memory is bounded by how many there are; guessing tokens is `throttle.py`'s matter.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

from edgefleet_contract.throttle import Bucket, Limit


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a user stands after a call; in seconds `wait_s` until the next one, 0 for now."""

    limit: Limit
    left: int
    full_in_s: int
    wait_s: int

    def headers(self) -> dict[str, str]:
        """As `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10)."""
        window = math.ceil(self.limit.burst / self.limit.per_second)
        return {
            "RateLimit-Policy": f'"user";q={self.limit.burst:.0f};w={window}',
            "RateLimit": f'"user";r={self.left};t={self.full_in_s}',
        }


@dataclass(slots=True)
class Budgets:
    """Counts calls; safe to use from several threads."""

    limit: Limit
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, user: str, *, now: float) -> Standing:
        """Count a call of a user; one that has to wait is not counted."""
        with self._lock:
            bucket = self._buckets.setdefault(user, Bucket(self.limit, self.limit.burst, now))
            wait_s = bucket.wait(now)
            if not wait_s:
                bucket.level -= 1
            missing = self.limit.burst - bucket.level
            full_in_s = math.ceil(missing / self.limit.per_second)
            return Standing(self.limit, int(bucket.level), full_in_s, math.ceil(wait_s))
