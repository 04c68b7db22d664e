"""Decisions that changed between a float model and its copy, counted by class. Pure."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from edgefleet_converter.report import MAX_FLIPS, Flip


def flips(
    before: NDArray[np.int64], after: NDArray[np.int64], truth: NDArray[np.int64] | None
) -> tuple[Flip, ...]:
    """The changes from `before` [N] to `after` [N], the most frequent first, then by class.

    >>> flips(np.array([1, 1, 2]), np.array([1, 7, 2]), np.array([1, 1, 0]))
    (Flip(before=1, after=7, count=1, truth=1),)
    """
    changed = np.flatnonzero(before != after)
    kinds = Counter(
        (int(before[i]), int(after[i]), None if truth is None else int(truth[i])) for i in changed
    )
    order = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0][:2], kind[0][2] or 0))
    return tuple(Flip(was, now, count, true) for (was, now, true), count in order[:MAX_FLIPS])
