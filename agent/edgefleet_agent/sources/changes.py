"""Which results are worth saying: the first, those that changed, and one after a while. [wire-11.3]

Without clock or I/O. What counts is the difference to the result that was said last, not to the
one before, so that a slow drift is not missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_agent.sources.config import EVERY, SinkConfig


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """A result that was said, and when, s."""

    outputs: Tensors
    tops: tuple[int, ...]
    at: float


def tops_of(outputs: Tensors) -> tuple[int, ...]:
    """The index of the largest score in each row of the only output that looks like scores.

    That is one of [rows, classes] of numbers, two classes or more; empty where there is none, or
    several.
    """
    scores = [array for array in outputs.values() if _is_scores(array)]
    if len(scores) != 1 or not scores[0].size:
        return ()
    return tuple(int(index) for index in scores[0].argmax(axis=1))


def cause_of(before: Said | None, now: Said, rule: SinkConfig) -> str:
    """Why this result is to be said; empty where it is not."""
    if rule.on == EVERY:
        return EVERY
    if before is None:
        return "first"
    changed = _difference(before, now, rule.deadband)
    if not changed and rule.at_least_every_s and now.at - before.at >= rule.at_least_every_s:
        return "time"
    return changed


def _difference(before: Said, now: Said, deadband: float | None) -> str:
    if _shapes(before.outputs) != _shapes(now.outputs):
        return "shape"
    if before.tops != now.tops:
        return "class"
    for name, array in now.outputs.items():
        if array.dtype == object:
            if before.outputs[name].tolist() != array.tolist():
                return "text"
        elif now.tops and _is_scores(array) and deadband is None:
            continue
        elif _moved(before.outputs[name], array, deadband or 0.0):
            return "number"
    return ""


def _moved(before: Array, now: Array, deadband: float) -> bool:
    """Whether any number moved by more; what is no number moves when it becomes another."""
    old, new = before.astype(np.float64), now.astype(np.float64)
    is_same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore"):  # between infinities
        is_near = np.abs(new - old) <= deadband
    return not bool((is_same | is_near).all())


def _is_scores(array: Array) -> bool:
    return array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "fiu"


def _shapes(outputs: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in outputs.items()}
