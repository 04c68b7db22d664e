"""Held-out examples, parted: those that the search sees, and those that confirm its choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, Arrays

FEWEST: Final = 20
_SEED: Final = 20_230_023


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of the held-out examples, each in rising order; no row is in both."""

    seen: NDArray[np.int64]
    kept: NDArray[np.int64]


def part(
    count: int,
    confirm_share: float,
    *,
    what: str = "a search",
    hint: str = "search.enabled = false builds int8 without one",
) -> Split:
    """The same parts for the same count, drawn by chance from a fixed seed.

    A larger share keeps those that a smaller one keeps, and more. `what` and `hint` are for the
    person who has too few examples.

    Raises:
        OperatorError: there are too few examples to keep some back.
    """
    if count < FEWEST:
        raise OperatorError(
            f"{what} needs {FEWEST} held-out examples, there are {count}",
            hint=hint,
        )
    order = np.random.default_rng(_SEED).permutation(count)
    kept = max(1, round(confirm_share * count))
    return Split(np.sort(order[kept:]), np.sort(order[:kept]))


def rows_of(arrays: Arrays, rows: NDArray[np.int64]) -> Arrays:
    """These rows of each array."""
    found: list[Array] = [array[rows] for array in arrays]
    return tuple(found)
