"""How fast a device may fetch: a token bucket, and hours of the day with caps of their own.

No clock: times are given. A bucket holds one second's worth, so that a cap is kept over any few
seconds; debts are allowed, since a block that has arrived can only be paid for afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.order_policy import SLOWEST


@dataclass(frozen=True, slots=True)
class HourCap:
    """From the hour `begin` until the hour `end`, local time, this cap; over midnight too."""

    begin: int
    end: int
    max_bytes_per_s: int

    def __post_init__(self) -> None:
        if not (0 <= self.begin <= 23 and 0 <= self.end <= 24 and self.begin != self.end):
            raise OperatorError(
                f"transfer.hours from {self.begin} to {self.end}",
                hint="begin is 0 to 23, end another hour up to 24",
            )
        check_cap("transfer.hours.max_bytes_per_s", self.max_bytes_per_s)

    def covers(self, hour: int) -> bool:
        """Whether an hour of the day lies in it."""
        if self.begin < self.end:
            return self.begin <= hour < self.end
        return hour >= self.begin or hour < self.end


def check_cap(name: str, value: int) -> None:
    """Nothing, if a cap is none (0) or one that a transfer can live with.

    Raises:
        OperatorError: it is not.
    """
    if value and value < SLOWEST:
        raise OperatorError(f"{name} is {value}", hint=f"0 for no cap, else at least {SLOWEST}")


class Pace:
    """The bucket of one device. Caps are bytes per second; 0 is no cap. The first hours win."""

    def __init__(self, max_bytes_per_s: int = 0, hours: tuple[HourCap, ...] = ()) -> None:
        self._cap, self._hours = max_bytes_per_s, hours
        self._lower = 0
        self._tokens: float | None = None
        self._at = 0.0

    def lower(self, max_bytes_per_s: int) -> None:
        """Cap at this as well, until told otherwise; 0: do not."""
        self._lower = max(SLOWEST, max_bytes_per_s) if max_bytes_per_s else 0

    def cap(self, hour: int) -> int:
        """The cap at an hour of the day."""
        found = (item.max_bytes_per_s for item in self._hours if item.covers(hour))
        caps = (next(found, self._cap), self._lower)
        return min((cap for cap in caps if cap), default=0)

    def pay(self, size: int, *, now: float, hour: int) -> float:
        """Seconds to wait after `size` bytes that arrived at `now` (any steady clock, s)."""
        cap = self.cap(hour)
        if not cap:
            self._tokens = None
            return 0.0
        if self._tokens is None:
            self._tokens, self._at = float(cap), now
        self._tokens = min(float(cap), self._tokens + (now - self._at) * cap) - size
        self._at = now
        return max(0.0, -self._tokens / cap)
