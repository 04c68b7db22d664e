"""Whether a variant may leave the desk: figures in, a refusal or nothing out. Pure.

A refusal is an OperatorError: the person at the desk changes the recipe, the data or the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.metrics import Share, relative_err
from edgefleet_converter.recipe import Budget


def refuse_not_finite(outputs: tuple[NDArray[np.generic], ...], *, what: str) -> None:
    """Refuse outputs that hold NaN or infinity.

    Raises:
        OperatorError: naming the output and how many rows are affected.
    """
    for index, output in enumerate(outputs):
        if not np.issubdtype(output.dtype, np.floating):
            continue
        bad = ~np.isfinite(output.reshape(len(output), -1)).all(axis=1)
        if bad.any():
            raise OperatorError(
                f"{what}: output {index} is NaN or infinite for {int(bad.sum())} of "
                f"{len(output)} held-out examples (first: {int(bad.argmax())})",
                hint="look at the model's division, logarithm and normalisation of such inputs",
            )


def refuse_disparity(
    reference: tuple[NDArray[np.generic], ...],
    copy: tuple[NDArray[np.generic], ...],
    *,
    tolerance: float,
    what: str,
) -> float:
    """The largest relative error of a float copy, if it is within tolerance.

    Raises:
        OperatorError: the copy is not a copy.
    """
    shapes = [output.shape for output in reference], [output.shape for output in copy]
    if shapes[0] != shapes[1]:
        raise OperatorError(f"{what}: outputs of shapes {shapes[1]}, the source gives {shapes[0]}")
    worst = max(relative_err(a, b) for a, b in zip(reference, copy, strict=True))
    if not worst <= tolerance:
        raise OperatorError(
            f"{what}: differs from its source by {worst:.3g}, {tolerance:.3g} is allowed",
            hint="parity.max_abs_err in the recipe sets the tolerance, if this is expected",
        )
    return worst


def accuracy_drop(before: Share | None, after: Share | None, agreement: Share | None) -> float:
    """The accuracy that a variant loses, as a share.

    Without labels it is the share of disagreement: no accuracy can drop by more than that.
    """
    if before is not None and after is not None:
        return before.value - after.value
    return 1.0 - agreement.value if agreement is not None else 0.0


def refuse_over_budget(drop: float, sqnr_db: float, budget: Budget, *, what: str) -> None:
    """Refuse a variant that costs more than the recipe allows.

    Raises:
        OperatorError: with the figure and the budget.
    """
    refuse_drop(drop, budget.max_accuracy_drop, what=what)
    if sqnr_db < budget.min_sqnr_db:
        raise OperatorError(
            f"{what}: SQNR is {sqnr_db:.1f} dB, at least {budget.min_sqnr_db:.1f} dB is asked for",
            hint="calibration data that looks like what devices see, or a float32 target",
        )


def refuse_drop(drop: float, most: float, *, what: str) -> None:
    """Refuse a loss of accuracy, as a share.

    Raises:
        OperatorError: with the figure and the budget.
    """
    if drop > most:
        raise OperatorError(
            f"{what}: accuracy drops by {100 * drop:.2f} points, {100 * most:.2f} are allowed",
            hint="more calibration data, a float32 target, or a larger budget.max_accuracy_drop",
        )


def refuse_less_than(accuracy: float, least: float, *, what: str) -> None:
    """Refuse an accuracy, as a share.

    Raises:
        OperatorError: with the figure and what is asked for.
    """
    if accuracy < least:
        raise OperatorError(
            f"{what}: accuracy is {100 * accuracy:.2f} %, {100 * least:.2f} % is asked for",
            hint="look at the weights of the graph, and at each model alone",
        )
