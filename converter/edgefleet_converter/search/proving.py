"""The largest of several cuts that a budget allows: chosen on one half of the held-out examples,
proven on the other. Pure.

The halves are drawn as the search draws its parts, and figures and bounds are the search's. There
is one difference: where the search's choice is over its budget for certain, nothing else is tried,
since what is tried until it fits is not confirmed by that. Here a smaller cut is always at hand, so
the figure itself has to be inside, and where it is not, the next smaller cut is held against the
same half. What that takes from the figure is in its interval, which gets wider with each look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.errors import OperatorError
from edgefleet_converter import metrics
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.search import ranking
from edgefleet_converter.search.fidelity import Examples, fidelity_of
from edgefleet_converter.search.figures import Fidelity, Proof
from edgefleet_converter.search.split import Split, part, rows_of

PROOF_SHARE: Final = 0.5

_Cut = TypeVar("_Cut")


@dataclass(frozen=True, slots=True)
class Halves:
    """What the float model says to both halves, and the accuracy that may be lost, as a share."""

    most: float
    split: Split
    seen: Examples
    kept: Examples

    def on_choice(self, outputs: Arrays) -> Fidelity:
        """The figures of a cut model on the half that the choice sees."""
        return fidelity_of(self.seen, rows_of(outputs, self.split.seen))

    def on_proof(self, outputs: Arrays, look: int) -> Fidelity:
        """Its figures on the other half, which is looked at for the `look`-th time."""
        return fidelity_of(self.kept, rows_of(outputs, self.split.kept), look=look)

    def why_outside(self, fidelity: Fidelity) -> str:
        """What a cut is over, in words; empty where it is inside."""
        return ranking.outside(fidelity, ranking.Bounds(self.most, -math.inf))


def halve(reference: Arrays, truth: NDArray[np.int64] | None, most: float, *, what: str) -> Halves:
    """The held-out examples in two halves.

    Args:
        reference: what the float model says to them.
        truth: the class of each, [N], if it is known.
        most: the accuracy that may be lost; without `truth`, the share decided otherwise.
        what: the key of the recipe, for errors.

    Raises:
        OperatorError: there are too few examples, or no classes to count.
    """
    if truth is None and not metrics.are_probabilities(reference[0]):
        raise OperatorError(
            f"{what}: without classes there is no accuracy to hold it to",
            hint="an array y in the held-out data, or no such budget",
        )
    split = part(
        len(reference[0]), PROOF_SHARE, what=what, hint=f"without {what} there is no such need"
    )
    seen, kept = (
        Examples(rows_of(reference, rows), None if truth is None else truth[rows], True)
        for rows in (split.seen, split.kept)
    )
    return Halves(most, split, seen, kept)


def first_proven(
    cuts: Iterable[tuple[_Cut, Arrays]], halves: Halves, *, what: str
) -> tuple[_Cut, Proof]:
    """The first cut that is inside the budget on both halves.

    Args:
        cuts: each with what its model says to all held-out examples, from the largest to the
            smallest; no more of them are made than are looked at.
        halves: of the same examples.
        what: the key of the recipe, for errors.

    Raises:
        OperatorError: none is. It says what the smallest cost.
    """
    look, why = 0, ""
    for cut, outputs in cuts:
        chosen = halves.on_choice(outputs)
        if over := halves.why_outside(chosen):
            why = f"the smallest cut is over on the half that it is chosen by: {over}"
            continue
        look += 1
        proven = halves.on_proof(outputs, look)
        over = halves.why_outside(proven)
        if not over:
            counts = len(halves.split.seen), len(halves.split.kept)
            return cut, Proof(halves.most, look, *counts, chosen, proven)
        why = f"the smallest cut is over on the half that the choice did not see: {over}"
    raise OperatorError(
        f"{what}: nothing is inside {100 * halves.most:.2f} points"
        + (f"; {why}" if why else ", be it cut ever so little"),
        hint="a larger budget, or no pruning; training it again wins back what a cut costs",
    )
