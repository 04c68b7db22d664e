"""Golden vectors: examples and answers that a device must reproduce before it serves a model.

Other processors and other versions of a runtime round differently, by one step of an 8-bit value at
most in one layer; behind it a softmax may turn that into more. So the vectors are chosen among the
held-out examples where this runtime's different kernels agree best, one class after another. The
tolerance is the larger of a floor, one quantum of the output, and twice what the kernels were
measured to differ by on the vectors: two that are each so far from ours may be twice as far from
each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.metrics import decide

FLOAT_TOLERANCE = 1e-5
"""Relative to the largest magnitude: float32 sums in another order differ by some 1e-6."""

LEAST_MOVE = 0.25

TAKE_EXAMPLES = 'golden.inputs = "held-out" takes examples as they are, if devices may have them'

MARGIN = 2.0
"""Times what kernels were measured to differ by [recipe-5.5]."""


@dataclass(frozen=True, slots=True)
class Stray:
    """How far some kernels are off: on the vectors, and on all held-out examples; None where a text
    or a whole number was another."""

    vectors: float
    held_out: float | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of the examples, and the tolerance of each output value in millionths.

    `floor` is what it is at least; `strays` are of each of the other kernels, in their order.
    """

    rows: tuple[int, ...]
    max_abs_err_e6: int
    floor: float = 0.0
    strays: tuple[Stray, ...] = ()


def choose(
    expected: Arrays,
    others: tuple[Arrays, ...],
    *,
    count: int,
    quantum: float,
    batch: int = -1,
    held_out: tuple[Arrays, tuple[Arrays, ...]] | None = None,
) -> Chosen:
    """The rows to keep as golden vectors.

    Args:
        expected: outputs of the default kernels, each [N, …].
        others: the same by other kernels.
        count: how many rows are wanted; fewer where N is smaller.
        quantum: the step of a quantized output; 0 where outputs are computed float.
        batch: how many the model takes at once; the vectors fill whole batches. -1 where it varies.
        held_out: the outputs for held-out examples, and those by other kernels; by default the rows
            are of these.

    Raises:
        OperatorError: no answer is finite.
    """
    size = len(expected[0])
    gaps = [_strays(expected, (other,), whole_numbers_differ=False) for other in others]
    floor = quantum if quantum > 0 else float_tolerance(expected)
    needed = _needed(floor, gaps, size)
    needed[~_are_finite(expected)] = np.inf
    turn = turns(decide(expected[0]))
    order = np.lexsort((np.arange(size), turn, needed))
    step = max(batch, 1)
    usable = int(np.isfinite(needed).sum())
    whole = max(1, min(-(-count // step), usable // step)) * step
    rows = np.sort(order[:whole])
    if not np.isfinite(needed[rows]).all():
        raise OperatorError(
            "no golden vectors: what the model gives for inputs that are drawn is not finite",
            hint=TAKE_EXAMPLES,
        )
    seen = gaps
    if held_out is not None:
        mine, theirs = held_out
        seen = [_strays(mine, (other,), whole_numbers_differ=False) for other in theirs]
    return _chosen(rows, needed, floor, gaps, seen)


def _needed(
    floor: float | NDArray[np.float64], gaps: list[NDArray[np.float64]], size: int
) -> NDArray[np.float64]:
    """What each row may differ by: the floor, or the margin over what was measured."""
    worst = np.max([np.zeros(size), *gaps], axis=0)
    return np.asarray(np.maximum(floor, MARGIN * worst), np.float64)


def _chosen(
    rows: NDArray[np.int64],
    needed: NDArray[np.float64],
    floor: float,
    gaps: list[NDArray[np.float64]],
    seen: list[NDArray[np.float64]],
) -> Chosen:
    strays = tuple(
        Stray(
            float(gap[rows].max()),
            float(wide.max()) if np.isfinite(wide).all() else None,
        )
        for gap, wide in zip(gaps, seen, strict=True)
    )
    worst = float(needed[rows].max())
    return Chosen(tuple(int(row) for row in rows), e6(worst), floor, strays)


def choose_whole(
    expected: Arrays,
    kernels: tuple[Arrays, ...],
    nudges: tuple[Arrays, ...],
    *,
    count: int,
    classes: NDArray[np.int64] | None,
    batch: int = -1,
    in_order: bool = False,
    held_out: tuple[Arrays, tuple[Arrays, ...]] | None = None,
) -> Chosen:
    """The rows to keep of a program's answers, and what their numbers may differ by.

    The tolerance is what the answers move by when what the models give moves by a quantum. A row
    whose text or whole numbers change then, or on other kernels, is not kept: another processor
    might change them as well, and they have to be equal.

    Args:
        expected: outputs of the default kernels, each [N, …], text among them.
        kernels: the same by other kernels.
        nudges: the same, with what the models give moved by a quantum.
        count: how many rows are wanted; fewer where there are not so many.
        classes: of each example, [N], if they are known.
        batch: how many the program takes at once; -1 where it varies.
        in_order: the rows are one sequence: the first ones are kept.
        held_out: as `choose` takes it.

    Raises:
        OperatorError: no example keeps its text and whole numbers.
    """
    size = len(expected[0])
    unit = float_tolerance(expected)
    room = np.maximum(_strays(expected, nudges), unit)
    gaps = [_strays(expected, (kernel,)) for kernel in kernels]
    needed = _needed(room, gaps, size)
    needed[~_are_finite(expected)] = np.inf
    firm = np.isfinite(needed)
    over = np.ones(size)
    over[firm] = needed[firm] / room[firm]
    rows = np.flatnonzero(firm)
    known = np.zeros(size, np.int64) if classes is None else classes
    order = rows[np.lexsort((rows, turns(known[rows]), over[rows]))]
    if in_order:
        order = np.arange(size)
    step = max(batch, 1)
    whole = min(-(-count // step), len(order) // step) * step
    rows = np.sort(order[:whole])
    if not whole or not firm[rows].all():
        raise OperatorError(
            "no golden vectors: whatever example is taken, its label or whole number changes when "
            "what the model gives is rounded another way",
            hint="more held-out data, or scores beside the label",
        )
    seen = gaps if held_out is None else [_strays(held_out[0], (one,)) for one in held_out[1]]
    return _chosen(rows, needed, float(room[rows].max()), gaps, seen)


def refuse_idle(vectors: Arrays, held_out: Arrays) -> None:
    """Refuse golden vectors that hardly move what the model gives: they would pass anything.

    Args:
        vectors: the answers of the vectors, each [K, …].
        held_out: those to all held-out examples, each [N, …].

    Raises:
        OperatorError: no output moves by a quarter of what it does for the middle nine tenths of
            the held-out examples.
    """
    pairs = [(_rows(a), _rows(b)) for a, b in zip(vectors, held_out, strict=True)]
    usual = [np.ptp(np.quantile(b, (0.05, 0.95), axis=0), axis=0) for _, b in pairs]
    moved = [np.ptp(a, axis=0) for a, _ in pairs]
    wide = [bool((m >= LEAST_MOVE * u)[u > 0].any()) for m, u in zip(moved, usual, strict=True)]
    still = [not bool((u > 0).any()) for u in usual]
    if not all(still) and not any(wide):
        raise OperatorError(
            "no golden vectors: inputs that are drawn hardly move what the model gives",
            hint=TAKE_EXAMPLES,
        )


def _rows(output: Array) -> NDArray[np.float64]:
    """Numbers, [N, M]; text by its place among all that occurs."""
    flat = output.reshape(len(output), -1)
    if flat.dtype.kind in "OU":
        return np.asarray(
            np.unique(flat.astype(np.str_), return_inverse=True)[1], np.float64
        ).reshape(flat.shape)
    return flat.astype(np.float64)


def _are_finite(outputs: Arrays) -> NDArray[np.bool_]:
    """Whether each row is, of all outputs."""
    found = np.ones(len(outputs[0]), np.bool_)
    for output in outputs:
        if output.dtype.kind == "f":
            found &= np.isfinite(output.reshape(len(output), -1)).all(axis=1)
    return found


def _strays(
    expected: Arrays, others: tuple[Arrays, ...], *, whole_numbers_differ: bool = True
) -> NDArray[np.float64]:
    """How far each row moves at most; infinitely where text is another, or a whole number is (else
    by their difference)."""
    size = len(expected[0])
    found = np.zeros(size)
    for other in others:
        for mine, theirs in zip(expected, other, strict=True):
            if is_exact(mine) and (whole_numbers_differ or mine.dtype.kind in "OU"):
                differs = (mine != theirs).reshape(size, -1).any(axis=1)
                gap = np.where(differs, np.inf, 0.0)
            else:
                apart = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
                gap = apart.reshape(size, -1).max(axis=1, initial=0.0)
            found = np.maximum(found, np.where(np.isnan(gap), np.inf, gap))
    return found


def is_exact(output: Array) -> bool:
    """Whether an output has to be equal: text, truth values, and integers that are no quantities
    (those of 8 and 16 bits are, as quantized models give them)."""
    return output.dtype.kind in "OUb" or (output.dtype.kind in "iu" and output.dtype.itemsize > 2)


def float_tolerance(expected: Arrays) -> float:
    """1e-5 of the largest magnitude of the outputs, and of 1 where they are smaller."""
    found = [float(np.abs(a).max()) for a in expected if not is_exact(a) and a.size]
    return FLOAT_TOLERANCE * max([1.0, *found])


def output_quantum(expected: Arrays, of_file: float, levels: int = 255) -> float:
    """The step of a quantized model's output: of its last quantizer, or 1/255 of its range.

    1/65535 where the values between its layers have 16 bits; no less than a float's tolerance.

    Where the last operators are float, the file names no step; what one step means at the output
    is then taken from the values that the output takes.
    """
    ranges = [float(output.max()) - float(output.min()) for output in expected]
    return max(of_file, max(ranges) / levels, float_tolerance(expected))


def e6(value: float) -> int:
    """A tolerance in millionths, rounded up, and one more for float32's own rounding.

    >>> e6(1 / 256)
    3908
    """
    return math.ceil(value * 1e6) + 1


def turns(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row, how many rows before it have its class: taking turns by class."""
    seen: dict[int, int] = {}
    found = np.zeros(len(classes), np.int64)
    for row, name in enumerate(classes.tolist()):
        found[row] = seen.get(name, 0)
        seen[name] = int(found[row]) + 1
    return found
