"""Shapes of tensors of any dtype: joining, parting, renaming of axes. Axis 0 is left alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgefleet_contract.errors import Malformed
from edgefleet_processing.errors import BadInput
from edgefleet_processing.scaling import checked_axis
from edgefleet_processing.settings import axis_of, within
from edgefleet_processing.step import Run
from edgefleet_processing.tensors import Array, need_room

_MAX_SIZE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Concat:
    """`axis` along which tensors are joined; never 0."""

    axis: int = -1

    def __post_init__(self) -> None:
        axis_of(self.axis)


def prepare_concat(settings: Concat, _: bytes | None) -> Run:
    """Tensors of one dtype that differ in no size but that of `axis` -> one tensor."""

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        first = taken[0]
        axis = checked_axis(first, settings.axis)
        shapes = [list(x.shape) for x in taken]
        others = {(x.ndim, *x.shape[:axis], *x.shape[axis + 1 :]) for x in taken}
        if len(others) != 1 or any(x.dtype != first.dtype for x in taken):
            raise BadInput(f"cannot join {shapes} of {sorted({x.dtype.name for x in taken})}")
        need_room((sum(x.size for x in taken),), first.itemsize)
        return (np.concatenate(taken, axis=axis),)

    return run


@dataclass(frozen=True, slots=True)
class Split:
    """`sizes` of the parts along `axis`, which add up to its size; never along 0."""

    sizes: tuple[int, ...]
    axis: int = -1

    def __post_init__(self) -> None:
        axis_of(self.axis)
        within(len(self.sizes), what="the number of sizes", least=1, most=64)
        for size in self.sizes:
            within(size, what="a size", least=0, most=_MAX_SIZE)


def prepare_split(settings: Split, _: bytes | None) -> Run:
    """A tensor -> as many tensors as there are sizes."""

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x = taken[0]
        axis = checked_axis(x, settings.axis)
        if x.shape[axis] != sum(settings.sizes):
            raise BadInput(f"cannot part {list(x.shape)} into {list(settings.sizes)}")
        parts = np.split(x, np.cumsum(settings.sizes[:-1]), axis=axis)
        return tuple(part.copy() for part in parts)  # a view keeps all of x

    return run


@dataclass(frozen=True, slots=True)
class Reshape:
    """`shape` of what follows the batch axis; one size may be -1, which is the rest."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        within(len(self.shape), what="the length of shape", least=0, most=7)
        for size in self.shape:
            within(size, what="a size", least=-1, most=_MAX_SIZE)
        if self.shape.count(-1) > 1:
            raise Malformed("shape has -1 more than once")


def reshape(x: Array, to: Reshape) -> Array:
    """[N, ...] -> [N, *shape], in row-major order."""
    if not x.ndim:
        raise BadInput("has no batch axis")
    inside = math.prod(x.shape[1:])
    known = math.prod(size for size in to.shape if size != -1)
    rest = inside // known if known else 0
    shape = tuple(rest if size == -1 else size for size in to.shape)
    if math.prod(shape) != inside:
        raise BadInput(f"cannot shape {list(x.shape)} as [N, {', '.join(map(str, to.shape))}]")
    return x.reshape(x.shape[0], *shape)


@dataclass(frozen=True, slots=True)
class Squeeze:
    """`axes` of size 1 that go; never 0."""

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        within(len(self.axes), what="the number of axes", least=1, most=7)
        for axis in self.axes:
            axis_of(axis)


def squeeze(x: Array, settings: Squeeze) -> Array:
    """A tensor -> the same without some axes of size 1."""
    axes = {checked_axis(x, axis) for axis in settings.axes}
    if any(x.shape[axis] != 1 for axis in axes):
        raise BadInput(f"cannot squeeze {list(settings.axes)} out of {list(x.shape)}")
    return x.squeeze(tuple(sorted(axes)))


@dataclass(frozen=True, slots=True)
class Expand:
    """`axis` of size 1 that comes in, counted in the result; never 0."""

    axis: int

    def __post_init__(self) -> None:
        axis_of(self.axis)


def expand(x: Array, settings: Expand) -> Array:
    """A tensor -> the same with one more axis, of size 1."""
    axis = settings.axis + x.ndim + 1 if settings.axis < 0 else settings.axis
    if not 1 <= axis <= x.ndim:
        raise BadInput(f"cannot put axis {settings.axis} into {list(x.shape)}")
    return np.expand_dims(x, axis)
