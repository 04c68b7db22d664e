"""Golden vectors: examples and answers that a device must reproduce before it serves a model.

Other processors and other versions of a runtime round differently, by one step of an 8-bit value at
most in one layer; behind it a softmax may turn that into more. So the vectors are chosen among the
held-out examples where this runtime's different kernels agree, one class after another, and the
tolerance is one quantum of the output (or what the kernels differ by, where none agree better).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.metrics import decide

FLOAT_TOLERANCE = 1e-5
"""Relative to the largest magnitude: float32 sums in another order differ by some 1e-6."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of the examples, and the tolerance of each output value in millionths."""

    rows: tuple[int, ...]
    max_abs_err_e6: int


def choose(
    expected: Arrays,
    others: tuple[Arrays, ...],
    *,
    count: int,
    quantum: float,
    batch: int = -1,
) -> Chosen:
    """The rows to keep as golden vectors.

    Args:
        expected: outputs of the default kernels, each [N, …].
        others: the same by other kernels.
        count: how many rows are wanted; fewer where N is smaller.
        quantum: the step of an int8 output; 0 for a float variant.
        batch: how many the model takes at once; the vectors fill whole batches. -1 where it varies.
    """
    size = len(expected[0])
    strays = np.zeros(size)
    for other in others:
        for mine, theirs in zip(expected, other, strict=True):
            gap = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
            strays = np.maximum(strays, gap.reshape(size, -1).max(axis=1))
    unit = quantum if quantum > 0 else float_tolerance(expected)
    steps = np.ceil(strays / unit - 1e-3).clip(min=0).astype(np.int64)
    steps = np.maximum(steps, 1)  # one step is allowed anyway
    turn = _turn(expected[0])
    order = np.lexsort((np.arange(size), turn, steps))
    step = max(batch, 1)
    whole = max(1, min(-(-count // step), size // step)) * step
    rows = np.sort(order[:whole])
    worst = int(steps[rows].max())
    return Chosen(tuple(int(row) for row in rows), e6(unit * worst))


def float_tolerance(expected: Arrays) -> float:
    """1e-5 of the largest magnitude of the outputs, and of 1 where they are smaller."""
    return FLOAT_TOLERANCE * max(1.0, *(float(np.abs(output).max()) for output in expected))


def output_quantum(expected: Arrays, of_file: float) -> float:
    """The step of an int8 model's output: of its last quantizer, or 1/255 of the range it gives.

    Where the last operators are float, the file names no step; what one step means at the output
    is then taken from the values that the output takes.
    """
    ranges = [float(output.max()) - float(output.min()) for output in expected]
    return max(of_file, max(ranges) / 255)


def e6(value: float) -> int:
    """A tolerance in millionths, rounded up, and one more for float32's own rounding.

    >>> e6(1 / 256)
    3908
    """
    return math.ceil(value * 1e6) + 1


def _turn(output: Array) -> NDArray[np.int64]:
    """For each row, how many rows before it have its class: taking turns by class."""
    classes = decide(output)
    seen: dict[int, int] = {}
    turns = np.zeros(len(classes), np.int64)
    for row, name in enumerate(classes.tolist()):
        turns[row] = seen.get(name, 0)
        seen[name] = turns[row] + 1
    return turns
