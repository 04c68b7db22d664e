"""When to stop and when to go on, as formulas over counts of devices. No I/O.

The lower Wilson bound is from E. B. Wilson, "Probable inference, the law of succession, and
statistical inference", JASA 22 (1927), 209 to 212:

    (p + z²/2n - z · sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n),   p = bad/n

It is computed over all devices and once more for each hardware class: what is bad on one kind of
board is a small share of the fleet, and a large one of that kind.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.rollout_states import Cause, Ending
from edgefleet_fleet.roster import AT_IT, FAILED, UNDONE, Outcome

Z_95: Final = 1.959963984540054
"""The two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Devices of the waves that are open.

    `good` and `bad` were attempted and ended, `silent` ones ran the model and went quiet,
    `at_work` answered and have not ended. `undelivered` and `refused` never ran it. `unasked` wait
    for their turn, `unheard` were asked and said nothing yet, `retrying` are asked again later. Of
    the failures, `excused` ones were acknowledged by a person (as were `excused_budget` of those
    that never ran it).
    """

    good: int = 0
    bad: int = 0
    silent: int = 0
    at_work: int = 0
    undelivered: int = 0
    refused: int = 0
    unasked: int = 0
    unheard: int = 0
    retrying: int = 0
    excused: int = 0
    excused_budget: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def failed(self) -> int:
        """Failures that nobody acknowledged, silence counted."""
        return max(0, self.bad + self.silent - self.excused)

    @property
    def attempted(self) -> int:
        """Devices on which the model is or was, without those that were acknowledged."""
        return self.good + self.failed + self.at_work

    @property
    def undone(self) -> int:
        """Devices that never ran it, for reasons of their own, and nobody acknowledged."""
        return max(0, self.undelivered + self.refused - self.excused_budget)

    @property
    def total(self) -> int:
        """Everybody."""
        return self.attempted + self.undone + self.unasked + self.unheard + self.retrying


_NAMES: Final = tuple(field.name for field in dataclasses.fields(Counts))


def counts_of(found: Mapping[Outcome, int], excused: Mapping[Outcome, int]) -> Counts:
    """Counts by outcome, as the gate sees them; what is blocked or withdrawn stands aside."""
    return Counts(
        good=found[Outcome.GOOD],
        bad=found[Outcome.BAD],
        silent=found[Outcome.SILENT],
        at_work=found[Outcome.STARTED] + found[Outcome.ACTIVE],
        undelivered=found[Outcome.UNDELIVERED],
        refused=found[Outcome.REFUSED],
        unasked=found[Outcome.PENDING],
        unheard=found[Outcome.ASKED],
        retrying=found[Outcome.RETRYING],
        # who was silent, was acknowledged and came back is no failure to forgive any more
        excused=sum(min(found[which], excused[which]) for which in FAILED),
        excused_budget=sum(min(found[which], excused[which]) for which in UNDONE),
    )


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """When a rollout stops by itself. Shares are from 0 to 1, times in seconds.

    Attributes:
        max_failures: so many failures stop it in any wave; None: the rule below alone.
        canary_failures: so many failures among explicit canaries stop it; 0: the rule below alone.
        limit, min_count: it stops at `min_count` failures whose lower bound is above `limit`.
        pass_ratio: the share of attempted devices that must be good for a wave to pass.
        min_sample: so many attempted devices let a wave pass without those that do not answer;
            0: all of its devices must have ended.
        silence_s: a device that runs the model and is not heard of for so long has failed.
        stall_s: nothing new for so long, while devices are waited for, pauses it; 0: never.
        undone_limit, undone_min: devices that could not fetch it or refused it have this budget.
        block_after: failed self-tests of one hardware class that block this class; 0: none do.
        on_trip: what a tripped gate does: nothing more than pause (None), or abort.
    """

    max_failures: int | None = None
    canary_failures: int = 1
    limit: float = 0.05
    min_count: int = 3
    pass_ratio: float = 0.9
    min_sample: int = 0
    silence_s: int = 900
    stall_s: int = 7 * 24 * 3600
    undone_limit: float = 0.3
    undone_min: int = 5
    block_after: int = 3
    on_trip: Ending | None = None

    def __post_init__(self) -> None:
        if self.max_failures is not None and self.max_failures < 1:
            raise Malformed("max-failures must be 1 or more")
        counts = (self.canary_failures, self.min_sample, self.stall_s, self.block_after)
        if min(*counts, self.min_count - 1, self.undone_min - 1, self.silence_s - 1) < 0:
            raise Malformed("gate: a count or a time is too small")
        if not all(0.0 <= share <= 1.0 for share in (self.limit, self.undone_limit)):
            raise Malformed("gate: a share is from 0 to 100 %")
        if not 0.0 < self.pass_ratio <= 1.0:
            raise Malformed("gate: pass is above 0 and at most 100 %")


DEFAULT_GATE: Final = GatePolicy()


@dataclass(frozen=True, slots=True)
class Trip:
    """Why it stops, for the machine and for people."""

    cause: Cause
    why: str


def wilson_lower(bad: int, n: int, z: float = Z_95) -> float:
    """The lower bound of the share of bad ones, 0 to 1; 0 for an empty sample."""
    if n <= 0:
        return 0.0
    p = bad / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n))


def exceeds(policy: GatePolicy, counts: Counts) -> bool:
    """Whether the failures are too many to be chance, by count and by bound."""
    bound = wilson_lower(counts.failed, counts.attempted - counts.at_work)
    return counts.failed >= policy.min_count and bound > policy.limit


def tripped(
    policy: GatePolicy, pooled: Counts, by_kind: Mapping[str, Counts], *, canaries: Counts
) -> Trip | None:
    """Why the failures that nobody acknowledged stop it, if they do."""
    if policy.max_failures is not None and pooled.failed >= policy.max_failures:
        return Trip(Cause.GATE, f"{_failures(pooled)}; max-failures is {policy.max_failures}")
    if policy.canary_failures and canaries.failed >= policy.canary_failures:
        return Trip(Cause.GATE, f"among canaries, {_failures(canaries)}")
    for name, counts in (("", pooled), *sorted(by_kind.items())):
        if exceeds(policy, counts):
            bound = wilson_lower(counts.failed, counts.attempted - counts.at_work)
            where = f"of {name}, " if name else ""
            words = f"{where}{_failures(counts)}: with 95 % confidence over {bound:.1%}"
            return Trip(Cause.GATE, f"{words}, and {policy.limit:.1%} is the limit")
    if pooled.undone >= policy.undone_min and pooled.undone > policy.undone_limit * (
        pooled.total - pooled.unasked - pooled.unheard - pooled.retrying
    ):
        return Trip(Cause.BUDGET, _undone(pooled))
    return None


def has_ended(policy: GatePolicy, counts: Counts, newest: Counts) -> bool:
    """Whether nobody is still at it. With a sample, the newest wave needs so many attempted
    devices, and those that never answered, or are asked again later, are not waited for."""
    if counts.unasked or counts.at_work:
        return False
    return not counts.unheard + counts.retrying or 0 < policy.min_sample <= newest.attempted


def objection(policy: GatePolicy, counts: Counts) -> Trip | None:
    """Why a wave whose devices have ended does not pass; None where it does."""
    if counts.good < policy.pass_ratio * counts.attempted:
        return Trip(Cause.GATE, f"{_failures(counts)}: fewer than {policy.pass_ratio:.0%} are good")
    if counts.undone > policy.undone_limit * (counts.attempted + counts.undone):
        return Trip(Cause.BUDGET, _undone(counts))
    return None


def at_it_count(found: Mapping[Outcome, int]) -> int:
    """How many were asked and have not ended, silent ones left out."""
    return sum(found[outcome] for outcome in AT_IT)


def _failures(counts: Counts) -> str:
    silent = f" ({counts.silent} silent)" if counts.silent else ""
    ended = counts.attempted - counts.at_work
    return f"{counts.failed}{silent} of {ended} devices failed"


def _undone(counts: Counts) -> str:
    return (
        f"{counts.undelivered} devices could not fetch it and {counts.refused} refused it,"
        f" of {counts.attempted + counts.undone}"
    )
