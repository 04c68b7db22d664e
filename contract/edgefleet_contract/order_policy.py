"""How a device is to go about an order: when, under which conditions, how carefully, how fast.

The numbers are integers, since orders are canonical JSON; units stand in the names. What a board
cannot tell does not hold it up; what it cannot do refuses the order (POLICY_UNSUPPORTED).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.errors import Malformed

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_START = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,2}")
_MAX_WINDOWS: Final = 32
SLOWEST: Final = 1024
"""The least bytes per second that a cap may be [wire-5.9]: below, sources are given up as slow."""


@dataclass(frozen=True, slots=True)
class Window:
    """Hours in which a device may swap models, every week [wire-4.7].

    `start` is HH:MM by the clocks of `zone` (an IANA name, `Europe/Berlin`), for `minutes` of real
    time, on `days` (`mon` … `sun`; none: every day). A start that the clocks skip happens as if
    they had not; of one that they show twice the first counts.
    """

    start: str
    minutes: int
    zone: str = "UTC"
    days: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if _START.fullmatch(self.start) is None:
            raise Malformed(f"window start {self.start[:20]!r} is not HH:MM")
        if not 1 <= self.minutes <= 7 * 24 * 60:
            raise Malformed(f"a window of {self.minutes} minutes; it has 1 to 10080")
        if _ZONE.fullmatch(self.zone) is None:
            raise Malformed(f"time zone {self.zone[:60]!r}")
        unknown = [day for day in self.days if day not in _DAYS]
        if unknown:
            raise Malformed(f"day {unknown[0][:20]!r}; the days are {', '.join(_DAYS)}")

    def weekdays(self) -> tuple[int, ...]:
        """The days as numbers, Monday 0."""
        return tuple(_DAYS.index(day) for day in self.days or _DAYS)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold on the board before an install goes on; 0 and False ask for nothing.

    `mains`: not on battery, to swap. `max_celsius`, `max_cpu_percent`: no hotter and no busier than
    that, to swap. `unmetered`: a link that does not cost by the byte, to download. A board that
    cannot tell (no sensor, no battery) is taken to fulfil them.
    """

    mains: bool = False
    unmetered: bool = False
    max_celsius: int = 0
    max_cpu_percent: int = 0


@dataclass(frozen=True, slots=True)
class Shadow:
    """A time in which the candidate answers a sample of the live requests, unseen.

    `seconds` of it; `share_percent` of the requests are copied; at least `min_requests` of them
    must have been compared, and `min_agreement_percent` of those must agree, else the install
    fails. With 0 it is reported and decides nothing. `max_cpu_percent` of one core is all it takes.
    """

    seconds: int
    share_percent: int = 10
    min_requests: int = 0
    min_agreement_percent: int = 0
    max_cpu_percent: int = 50

    def __post_init__(self) -> None:
        shares = (self.share_percent, self.min_agreement_percent, self.max_cpu_percent)
        if self.seconds < 1 or self.min_requests < 0 or any(not 0 <= s <= 100 for s in shares):
            raise Malformed(f"shadow of {self.seconds} s: a number in it makes no sense")


@dataclass(frozen=True, slots=True)
class Canary:
    """A time in which the candidate answers a share of the live requests for real.

    `seconds` of it; `share_percent` of the requests that name no version go to it. The install
    fails where it was asked fewer than `min_requests`, where it failed more than `max_failures`
    that the serving version then answered, where it died, or where its 95th percentile of latencies
    is above `max_p95_percent` of the serving version's in the same time (0: not held; 150: half as
    slow again).
    """

    seconds: int
    share_percent: int = 10
    min_requests: int = 0
    max_failures: int = 0
    max_p95_percent: int = 0

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise Malformed(f"canary.seconds is {self.seconds}", hint="1 or more")
        if not 1 <= self.share_percent <= 100:
            raise Malformed(f"canary.share_percent is {self.share_percent}", hint="1 to 100")
        for name in ("min_requests", "max_failures", "max_p95_percent"):
            if getattr(self, name) < 0:
                raise Malformed(f"canary.{name} is {getattr(self, name)}", hint="0 or more")


@dataclass(frozen=True, slots=True)
class Policy:
    """How the device is to go about it.

    Attributes:
        probation_s: how long a new version serves before it is committed, seconds.
        probation_requests: so many good answers commit it before that; 0: the time alone does.
        max_failures: failed inferences on probation that are forgiven.
        needs_link_s: the broker must be reached so many seconds into the probation, or the device
            goes back; 0: it need not be reached, a device commits offline.
        windows: when the device may swap; none: at any time.
        conditions: what must hold on the board.
        shadow: whether and how the candidate shadows the model that serves.
        canary: whether and how it then answers a share of the live requests.
        max_bytes_per_day: bytes that may be fetched in a day (UTC); 0: no budget.
        max_bytes_per_s: how fast; 0: as fast as it goes. Less than `SLOWEST` means that.
        keep_as_fallback: once committed, this is what the device goes back to when all else fails.
        retry_quarantined: try what failed here before.
    """

    probation_s: int = 2
    probation_requests: int = 0
    max_failures: int = 0
    needs_link_s: int = 0
    windows: tuple[Window, ...] = ()
    conditions: Conditions = Conditions()
    shadow: Shadow | None = None
    canary: Canary | None = None
    max_bytes_per_day: int = 0
    max_bytes_per_s: int = 0
    keep_as_fallback: bool = False
    retry_quarantined: bool = False

    def __post_init__(self) -> None:
        numbers = (
            *(self.probation_s, self.probation_requests, self.max_failures, self.needs_link_s),
            *(self.max_bytes_per_day, self.max_bytes_per_s),
        )
        if min(numbers) < 0 or len(self.windows) > _MAX_WINDOWS:
            raise Malformed(f"policy: a negative number, or over {_MAX_WINDOWS} windows")


DEFAULT_POLICY: Final = Policy()
