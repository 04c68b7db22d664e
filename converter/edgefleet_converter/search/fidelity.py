"""What a model is worth on some examples, against the float model it was made of. Pure NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefleet_converter import metrics
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.search.figures import Fidelity, paired_drop


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples of one part: what the float model says, and what is known of them.

    `has_classes`: whether decisions count. `scored` is the truth as it was brought, or nothing.
    """

    answers: Arrays
    truth: NDArray[np.int64] | None
    has_classes: bool
    scored: Arrays = ()

    @property
    def before(self) -> NDArray[np.bool_] | None:
        """Whether the float model is right, [N], where that is known."""
        if self.truth is None or not self.has_classes:
            return None
        return np.asarray(metrics.decide(self.answers[0]) == self.truth, np.bool_)


def fidelity_of(
    examples: Examples, outputs: Arrays, metric: float | None = None, *, look: int = 0
) -> Fidelity:
    """The figures of a candidate that said `outputs`; NaN and infinity are the worst noise.

    Intervals are as wide as `metrics.z_of` says of a `look`.
    """
    pairs = zip(examples.answers, outputs, strict=True)
    sqnr = min(metrics.sqnr_db(a, b) if _is_finite(b) else -metrics.EXACT_DB for a, b in pairs)
    before = examples.before
    if not examples.has_classes:
        return Fidelity(sqnr, metric=metric)
    same = metrics.agreement(examples.answers[0], outputs[0], look=look)
    if before is None:
        return Fidelity(sqnr, agreement=same, metric=metric)
    after = np.asarray(metrics.decide(outputs[0]) == examples.truth, np.bool_)
    right = metrics.wilson(int(after.sum()), len(after), look=look)
    return Fidelity(sqnr, right, paired_drop(before, after, look=look), same, metric)


def _is_finite(array: NDArray[np.generic]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
