"""What all steps hold their tensors against: ranks, kinds, and how large one may become.

A step says what it is about to allocate before it does, so that neither a hostile bundle nor a
hostile request takes more of the board than `MAX_BYTES` for one tensor; the graph counts what it
holds at one time, `MAX_HELD` at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.errors import Malformed
from edgefleet_processing.errors import BadInput

Array: TypeAlias = NDArray[Any]

MAX_BYTES: Final = 256 * 1024 * 1024
"""Of one tensor that a step gives, or holds while it works."""

MAX_FILE: Final = 64 * 1024 * 1024
"""Of a labels or vocabulary file."""

MAX_HELD: Final = 512 * 1024 * 1024
"""Of all tensors that a program holds between two nodes."""


def need_room(shape: Sequence[int], itemsize: int) -> None:
    """Refuse what would be larger than one tensor may be.

    Raises:
        BadInput: with the size that it would have.
    """
    size = math.prod(shape) * itemsize
    if size > MAX_BYTES:
        raise BadInput(f"would need {size} bytes for {list(shape)}, at most {MAX_BYTES} are taken")


def need_rank(x: Array, rank: int, axes: str) -> None:
    """Refuse a tensor of another rank; `axes` names what was expected."""
    if x.ndim != rank:
        raise BadInput(f"takes [{axes}], got {list(x.shape)}")


def need_numbers(x: Array) -> None:
    """Refuse text."""
    if x.dtype.kind not in "biuf":
        raise BadInput(f"takes numbers, got {_kind(x)}")


def need_integers(x: Array) -> None:
    """Refuse text, floats and truth values."""
    if x.dtype.kind not in "iu":
        raise BadInput(f"takes integers, got {_kind(x)}")


def floats(x: Array) -> NDArray[np.float32]:
    """The numbers in `x` as float32, without a copy where they are."""
    need_numbers(x)
    need_room(x.shape, 4)
    return x.astype(np.float32, copy=False)


def texts(x: Array) -> list[str]:
    """The text in a tensor of strings, in its order; bytes are read as UTF-8.

    Raises:
        BadInput: not strings, or not UTF-8.
    """
    if x.dtype.kind not in "OUS":
        raise BadInput(f"takes text, got {x.dtype.name}")
    try:
        return [v.decode() if isinstance(v, bytes) else str(v) for v in x.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise BadInput(f"text is not UTF-8: {error.reason}") from None


def as_strings(found: Sequence[str], shape: Sequence[int]) -> Array:
    """A tensor of strings, as runtimes take and give them: an array of objects."""
    array = np.empty(len(found), object)
    array[:] = found
    return array.reshape(tuple(shape))


def lines(raw: bytes, *, most: int) -> tuple[str, ...]:
    """The lines of a labels or vocabulary file: UTF-8, ended by line feeds (or by CR LF).

    Raises:
        Malformed: not UTF-8, empty, or larger or of more lines than is read.
    """
    if len(raw) > MAX_FILE:
        raise Malformed(f"its file has {len(raw)} bytes, at most {MAX_FILE} are read")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"its file is not UTF-8 at byte {error.start}") from None
    found = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if not text:
        raise Malformed("its file is empty")
    if len(found) > most:
        raise Malformed(f"its file has {len(found)} lines, at most {most} are read")
    return tuple(found)


def _kind(x: Array) -> str:
    return "text" if x.dtype.kind in "OUS" else x.dtype.name
