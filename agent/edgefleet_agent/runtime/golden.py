"""Golden vectors: inputs and the outputs that a model must give for them on this board.

A `.npz` with `input.0 …` and `output.0 …`, in the order of the variant's inputs and outputs
[bundle-4.3]. The first axis counts vectors, in one of two layouts, told by the rank of the arrays:

- batch: arrays have the rank of the tensors; axis 0 is the batch axis of all of them;
- stacked: arrays have one axis more; each vector is a whole call (state in and out, scalars).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgefleet_agent.ports import Failed
from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_contract.bundle import TensorSpec, Variant
from edgefleet_contract.errors import Malformed
from edgefleet_contract.reasons import Reason


@dataclass(frozen=True, slots=True)
class Call:
    """One inference: what goes in, and what must come out, by name."""

    feeds: Tensors
    expected: Tensors


@dataclass(frozen=True, slots=True)
class Golden:
    """The vectors of one variant. `vectors` is how many; `first` is a call with the first alone."""

    vectors: int
    calls: tuple[Call, ...]
    first: Call


def read_golden(source: Path | BinaryIO, variant: Variant) -> Golden:
    """The vectors in a file, or what was opened of one, held against what the variant declares.

    Raises:
        Malformed: not a `.npz`, an array missing or too many, a dtype or shape that does not fit.
    """
    names = [
        *(f"input.{i}" for i in range(len(variant.inputs))),
        *(f"output.{i}" for i in range(len(variant.outputs))),
    ]
    try:
        with np.load(source, allow_pickle=False) as archive:
            if sorted(archive.files) != sorted(names):
                raise Malformed(
                    f"golden vectors: arrays {sorted(archive.files)}, expected {sorted(names)}"
                )
            arrays = [archive[name] for name in names]
    except (Malformed, MemoryError):
        raise
    except Exception as error:  # a stranger's archive: zipfile, zlib and numpy raise many kinds
        raise Malformed(f"golden vectors cannot be read: {error}") from error
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise Malformed("golden vectors: a member is not an array")
    specs = (*variant.inputs, *variant.outputs)
    return _arrange(variant, [_typed(a, s) for a, s in zip(arrays, specs, strict=True)])


def worst_difference(found: Tensors, expected: Tensors) -> float:
    """The largest absolute difference over all outputs; infinite where they cannot be compared.

    NaN equals NaN, an infinity itself; strings differ by infinity or not at all.
    """
    return max((_difference(found[name], expected[name]) for name in expected), default=0.0)


def check(run: Callable[[Tensors], Tensors], golden: Golden, max_abs_err_e6: int) -> float | Failed:
    """The largest difference over all vectors, or GOLDEN_MISMATCH where one is not allowed.

    Raises:
        CannotRun: the runtime said no.
    """
    worst = 0.0
    for call in (*golden.calls, golden.first):
        found = worst_difference(run(call.feeds), call.expected)
        # One part in a million of slack: the limit is an integer, the difference a sum of floats.
        if found * 1e6 > max_abs_err_e6 * (1 + 1e-6):
            return Failed(
                Reason.GOLDEN_MISMATCH,
                f"an output differs by {found:.6g}, allowed are {max_abs_err_e6 / 1e6:.6g}",
            )
        worst = max(worst, found)
    return worst


def _difference(found: Array, expected: Array) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind == "O":
        return 0.0 if bool(np.array_equal(found, expected)) else float("inf")
    left, right = found.astype(np.float64), expected.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    if bool(same.all()):
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(left[~same] - right[~same])
    return float("inf") if bool(np.isnan(gap).any()) else float(gap.max())


def _typed(array: Array, spec: TensorSpec) -> Array:
    if spec.dtype == "string":
        if array.dtype.kind not in "US":
            raise Malformed(f"golden vectors: {spec.name!r} holds {array.dtype}, expected text")
        return array.astype(object)
    if array.dtype.name != spec.dtype:
        raise Malformed(f"golden vectors: {spec.name!r} holds {array.dtype}, expected {spec.dtype}")
    return array


def _arrange(variant: Variant, arrays: list[Array]) -> Golden:
    specs = (*variant.inputs, *variant.outputs)
    extra = {array.ndim - len(spec.shape) for array, spec in zip(arrays, specs, strict=True)}
    counts = {array.shape[0] if array.ndim else 0 for array in arrays}
    if len(counts) != 1 or len(extra) != 1 or extra > {0, 1}:
        shapes = [list(array.shape) for array in arrays]
        raise Malformed(f"golden vectors: shapes {shapes} do not count the same vectors")
    count, stacked = counts.pop(), extra.pop() == 1
    if count < 1:
        raise Malformed("golden vectors: there are none")
    for array, spec in zip(arrays, specs, strict=True):
        _check_shape(array.shape[1:], spec.shape if stacked else spec.shape[1:], spec.name)
    if stacked:
        calls = tuple(_call(variant, [a[i] for a in arrays]) for i in range(count))
        return Golden(count, calls, calls[0])
    batch = _batch_of(specs, count)
    calls = tuple(_batches(variant, arrays, count, batch))
    is_free = all(spec.shape[0] == -1 for spec in specs)
    first = _call(variant, [a[:1] for a in arrays]) if is_free else calls[0]
    return Golden(count, calls, first)


def _batch_of(specs: tuple[TensorSpec, ...], count: int) -> int:
    """How many vectors one call takes: all where every batch axis is free, else what is fixed."""
    fixed = {spec.shape[0] for spec in specs} - {-1}
    if not fixed:
        return count
    size = fixed.pop()
    if fixed or size < 1 or count % size:
        raise Malformed(f"golden vectors: {count} vectors do not fill batches of {size}")
    return size


def _batches(variant: Variant, arrays: list[Array], count: int, batch: int) -> Iterator[Call]:
    for start in range(0, count, batch):
        yield _call(variant, [array[start : start + batch] for array in arrays])


def _call(variant: Variant, arrays: list[Array]) -> Call:
    taken = len(variant.inputs)
    contiguous = [np.asarray(array, order="C") for array in arrays]
    return Call(
        {spec.name: a for spec, a in zip(variant.inputs, contiguous[:taken], strict=True)},
        {spec.name: a for spec, a in zip(variant.outputs, contiguous[taken:], strict=True)},
    )


def _check_shape(found: tuple[int, ...], declared: tuple[int, ...], name: str) -> None:
    if any(want not in (-1, have) for have, want in zip(found, declared, strict=True)):
        raise Malformed(f"golden vectors: {name!r} has {list(found)}, declared {list(declared)}")
