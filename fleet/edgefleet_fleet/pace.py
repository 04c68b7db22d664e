"""How fast devices of an open wave are asked: a token bucket whose rate may rise. No I/O, no clock.

A bucket holds at most the starts of ten seconds (at least one), so that a pause or a restart does
not end in a burst. The rate rises by `factor` for every `every` devices that ended well, as the
exponential rollout rate of AWS IoT Jobs does, up to `max_per_minute`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from edgefleet_contract.errors import Malformed

_BURST_S: Final = 10.0
UNBOUNDED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """Starts per minute and installs at once; 0 leaves either unbounded.

    `factor` and `every` are the ramp; `max_per_minute` its end (0: none).
    """

    per_minute: int = 0
    at_once: int = 0
    factor: float = 1.0
    every: int = 0
    max_per_minute: int = 0

    def __post_init__(self) -> None:
        if min(self.per_minute, self.at_once, self.every, self.max_per_minute) < 0:
            raise Malformed("pace: a negative number")
        if not 1.0 <= self.factor <= 10.0:
            raise Malformed(f"pace: a ramp by {self.factor:g}; it has 1 to 10")
        if self.factor > 1.0 and (not self.every or not self.per_minute):
            raise Malformed(
                "pace: a ramp needs a rate to begin with, and devices that raise it",
                hint="50/min,ramp=2x100",
            )

    def rate(self, good: int) -> float:
        """Starts per minute once so many devices ended well; 0: unbounded."""
        if not self.per_minute:
            return 0.0
        rungs = good // self.every if self.every else 0
        # 2^60 a minute is beyond any fleet, and a float
        rate = self.per_minute * self.factor ** min(rungs, 60)
        return min(rate, self.max_per_minute) if self.max_per_minute else rate


DEFAULT_PACE: Final = Pace()


@dataclass(frozen=True, slots=True)
class Bucket:
    """What may start at once: `tokens` at second `at`. A bucket that never ran is full."""

    tokens: float = -1.0
    at: int = 0

    def filled(self, rate: float, now: int) -> Bucket:
        """The bucket at `now`; a clock that went back gives nothing."""
        room = max(1.0, rate / 60 * _BURST_S)
        if self.tokens < 0:
            return Bucket(room, now)
        more = max(0, now - self.at) * rate / 60
        return Bucket(min(room, self.tokens + more), max(now, self.at))

    def take(self, count: int) -> Bucket:
        """The bucket after so many starts."""
        return replace(self, tokens=self.tokens - count)

    @property
    def whole(self) -> int:
        """Starts that it has."""
        return max(0, math.floor(self.tokens + 1e-9))

    def next_at(self, rate: float) -> int:
        """When it holds a whole start, seconds since 1970."""
        missing = max(0.0, 1.0 - self.tokens)
        return self.at + math.ceil(missing * 60 / rate) if rate else self.at


FULL: Final = Bucket()
