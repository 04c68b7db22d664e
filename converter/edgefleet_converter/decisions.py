"""What a client reads out of an answer: a class, from labels, places, scores, yes and no. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.metrics import are_probabilities, decide


def decided(outputs: Arrays, labels: Sequence[str]) -> NDArray[np.int64] | None:
    """The class of each example, [N]; None where the answers name none.

    Of several outputs, text decides (the first label of a row), then whole numbers (the first of a
    row), then truth values, then the largest of the scores in the first output.
    """
    for output in outputs:
        if output.dtype.kind in "OU":
            return _named(output, labels)
    for kind in ("i", "b"):
        for output in outputs:
            if _kind(output) == kind:
                return np.asarray(output.reshape(len(output), -1)[:, 0], np.int64)
    return decide(outputs[0])


def says_classes(outputs: Arrays) -> bool:
    """Whether answers are plainly decisions: not scores, or scores that are probabilities."""
    return any(_kind(output) != "f" for output in outputs) or are_probabilities(outputs[0])


def _named(output: Array, labels: Sequence[str]) -> NDArray[np.int64] | None:
    places = {name: i for i, name in enumerate(labels)}
    first = [str(row[0]) for row in output.reshape(len(output), -1).tolist()]
    if not all(name in places for name in first):
        return None
    return np.asarray([places[name] for name in first], np.int64)


def _kind(output: Array) -> str:
    """`i` of 32 or 64 bits names classes; smaller ones are scores, as 8-bit models give them."""
    if output.dtype.kind in "iu":
        return "i" if output.dtype.itemsize >= 4 else "f"
    return output.dtype.kind
