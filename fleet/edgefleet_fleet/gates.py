"""When to stop and when to go on, as formulas over counts. No I/O.

The lower Wilson bound is from E. B. Wilson, "Probable inference, the law of succession, and
statistical inference", JASA 22 (1927), 209 to 212:

    (p + z²/2n - z · sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n),   p = bad/n
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

Z_95: Final = 1.959963984540054
"""The two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Devices of the waves that are open: `good` and `bad` have ended, `waiting` have not.

    `excused` of the bad ones were acknowledged by a person.
    """

    good: int = 0
    bad: int = 0
    waiting: int = 0
    excused: int = 0


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """When a rollout stops by itself.

    `max_failures` bad devices stop it in any wave; None means: the first one in a wave before the
    last, and in the last wave `min_count` bad ones whose share is above `limit` with 95 %
    confidence. A wave passes when all of its devices have ended and `pass_ratio` of them are good.
    """

    max_failures: int | None = None
    limit: float = 0.1
    min_count: int = 3
    pass_ratio: float = 0.9


DEFAULT_GATE: Final = GatePolicy()


def wilson_lower(bad: int, n: int, z: float = Z_95) -> float:
    """The lower bound of the share of bad ones, 0 to 1; 0 for an empty sample."""
    if n <= 0:
        return 0.0
    p = bad / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n))


def has_tripped(policy: GatePolicy, counts: Counts, *, is_last_wave: bool) -> bool:
    """Whether the failures that nobody acknowledged are too many."""
    bad = counts.bad - counts.excused
    if bad <= 0:
        return False
    if policy.max_failures is not None:
        return bad >= max(1, policy.max_failures)
    if not is_last_wave:
        return True
    return bad >= policy.min_count and wilson_lower(bad, counts.good + bad) > policy.limit


def has_ended(counts: Counts) -> bool:
    """Whether no device of the open waves is still at it."""
    return counts.waiting == 0


def has_passed(policy: GatePolicy, counts: Counts) -> bool:
    """Whether enough devices of the open waves ended well; excused ones stand aside."""
    judged = counts.good + counts.bad - counts.excused
    return has_ended(counts) and counts.good >= policy.pass_ratio * judged
