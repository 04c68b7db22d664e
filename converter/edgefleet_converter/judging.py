"""What a variant is worth: accuracy of what clients get, and the noise of what the model gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefleet_converter import gate, golden, metrics
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.bench import Answers, Bench
from edgefleet_converter.flips import flips
from edgefleet_converter.float_models import FloatModel
from edgefleet_converter.metrics import Share
from edgefleet_converter.report import Flip
from edgefleet_converter.targets import Target
from edgefleet_converter.whole_variants import Setting, classes_of


@dataclass(frozen=True, slots=True)
class Seen:
    """What clients get: answers, the classes that they read in them, whether steps made them."""

    given: Arrays
    classes: NDArray[np.int64] | None
    is_program: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What a variant is worth against its float model. Shares are of what clients get."""

    before: Share | None
    after: Share | None
    agreement: Share | None
    sqnr_db: float
    max_abs_err: float
    flips: tuple[Flip, ...] | None = None


def judge(
    bench: Bench,
    setting: Setting,
    target: Target,
    base: FloatModel,
    answers: Answers | None,
    seen: Seen,
    truth: NDArray[np.int64] | None,
) -> Figures:
    """Accuracy before and after, agreement, and the noise of the model's outputs; in the budget.

    Args:
        bench: whose recipe has the budget.
        setting: the steps around the model.
        target: what was made.
        base: the float model that it was made of.
        answers: what the model itself says; None where it is stateful.
        seen: what clients get.
        truth: the class of each example, [N], if it is known.

    Raises:
        OperatorError: it costs more than the budget allows.
    """
    if base.answers is None or answers is None or target.is_as_is:
        share = _accuracy(seen.classes, truth)
        return Figures(None, share, None, metrics.EXACT_DB, 0.0)
    float_outputs, outputs = base.answers.arrays, answers.arrays
    own = seen.classes
    if not seen.is_program:
        reference: NDArray[np.int64] | None = metrics.decide(float_outputs[0])
    elif target.is_quantized and not base.answers.is_int8:
        reference = classes_of(bench, setting, target.kind, base.path, base.answers)
    else:
        reference = own
    before, after = _accuracy(reference, truth), _accuracy(own, truth)
    same, changed = None, None
    is_decision = seen.is_program and golden.is_exact(seen.given[0])
    if (truth is not None or is_decision or metrics.are_probabilities(float_outputs[0])) and (
        own is not None and reference is not None
    ):
        same = metrics.wilson(int((own == reference).sum()), len(own))
        changed = flips(reference, own, truth)
    sqnr = min(metrics.sqnr_db(a, b) for a, b in zip(float_outputs, outputs, strict=True))
    drop = gate.accuracy_drop(before, after, same)
    gate.refuse_over_budget(drop, sqnr, bench.recipe.budget, what=str(target))
    worst = max(metrics.max_abs_err(a, b) for a, b in zip(float_outputs, outputs, strict=True))
    return Figures(before, after, same, sqnr, worst, changed)


def _accuracy(classes: NDArray[np.int64] | None, truth: NDArray[np.int64] | None) -> Share | None:
    if classes is None or truth is None:
        return None
    return metrics.wilson(int((classes == truth).sum()), len(truth))
