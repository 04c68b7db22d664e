"""One tensor of the Open Inference Protocol v2: from JSON or bytes to an array, and back. [api-6]

Bytes are little-endian and row by row; `BYTES` elements have their length before them (u32). JSON
is a flat list, or lists nested as the shape says.
"""

from __future__ import annotations

import math
import struct
from itertools import chain
from typing import Any, Final

import numpy as np

from edgefleet_agent.runtime.engine import Array
from edgefleet_agent.serving.bodies import BadBody, BadOutput, check_text, kind
from edgefleet_contract.bundle import TensorSpec

_LENGTH: Final = struct.Struct("<I")
_KINDS: Final[dict[str, frozenset[type]]] = {
    "f": frozenset({int, float}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "b": frozenset({bool}),
    "O": frozenset({str}),
}


def from_bytes(raw: memoryview, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """The array that bytes hold; numbers are not copied where they are aligned.

    Raises:
        BadBody: too few or too many for the shape, or text that is not UTF-8.
    """
    if spec.dtype == "string":
        return _texts(raw, spec.name, math.prod(shape)).reshape(shape)
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    wanted = math.prod(shape) * dtype.itemsize
    if len(raw) != wanted:
        raise BadBody(
            f"input {spec.name!r} has {len(raw)} bytes, {spec.dtype} of shape {list(shape)} is"
            f" {wanted}"
        )
    array = np.frombuffer(raw, dtype)
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise BadBody(f"input {spec.name!r} holds a byte above 1, which is neither true nor false")
    return np.require(array, np.dtype(spec.dtype), "A").reshape(shape)


def to_bytes(array: Array) -> memoryview:
    """What goes over the wire; numbers are not copied where they lie as they are sent."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data
    pieces: list[bytes] = []
    for item in array.ravel():
        raw = item.encode() if isinstance(item, str) else item
        pieces += (_LENGTH.pack(len(raw)), raw)
    return memoryview(b"".join(pieces))


def from_list(value: Any, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """The array that a JSON list holds.

    Raises:
        BadBody: too few or too many values, of another kind, or too large for the dtype.
    """
    flat = _flatten(value, spec, shape)
    dtype = np.dtype(object if spec.dtype == "string" else spec.dtype)
    strangers = set(map(type, flat)) - _KINDS[dtype.kind]
    if strangers:
        stranger = next(item for item in flat if type(item) in strangers)
        found = "fractions" if type(stranger) is float else kind(stranger)
        raise BadBody(f"input {spec.name!r} holds {found}, expected {spec.dtype}")
    if dtype.kind == "O":
        check_text(flat, spec.name)
    if dtype.kind in "iu" and flat:
        bounds, low, high = np.iinfo(spec.dtype), min(flat), max(flat)
        if low < bounds.min or high > bounds.max:
            raise BadBody(
                f"input {spec.name!r} holds {low} to {high}, {spec.dtype} is {bounds.min} to"
                f" {bounds.max}"
            )
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype)
    except OverflowError:
        raise _too_large(spec) from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise _too_large(spec)
    return array.reshape(shape)


def plain_list(array: Array, name: str) -> list[Any]:
    """A flat list for JSON.

    Raises:
        BadOutput: text that is not UTF-8, which goes in binary only.
    """
    flat = array.ravel().tolist()
    if array.dtype.kind != "O":
        return flat
    try:
        return [item.decode() if isinstance(item, bytes) else item for item in flat]
    except UnicodeDecodeError:
        raise BadOutput(f"output {name!r} is not UTF-8: ask for it as binary data") from None


def _flatten(value: Any, spec: TensorSpec, shape: tuple[int, ...]) -> list[Any]:
    if not isinstance(value, list):
        raise BadBody(f"'data' of input {spec.name!r} is {kind(value)}, expected a list")
    flat = value
    if value and isinstance(value[0], list):
        level = [value]
        for size in shape:
            if any(type(item) is not list or len(item) != size for item in level):
                raise BadBody(
                    f"'data' of input {spec.name!r} is not nested as its shape {list(shape)} says"
                )
            level = list(chain.from_iterable(level))
        flat = level
    wanted = math.prod(shape)
    if len(flat) != wanted:
        raise BadBody(
            f"input {spec.name!r} holds {len(flat)} values, shape {list(shape)} is {wanted}"
        )
    return flat


def _texts(raw: memoryview, name: str, wanted: int) -> Array:
    found: list[str] = []
    at = 0
    while at < len(raw):
        start = at + _LENGTH.size
        if start > len(raw):
            raise BadBody(f"input {name!r} ends within the length of element {len(found)}")
        (size,) = _LENGTH.unpack_from(raw, at)
        at = start + size
        if at > len(raw):
            raise BadBody(
                f"element {len(found)} of input {name!r} announces {size} bytes,"
                f" {len(raw) - start} are left"
            )
        try:
            found.append(str(raw[start:at], "utf-8"))
        except UnicodeDecodeError:  # text is what the runtimes take
            raise BadBody(f"element {len(found)} of input {name!r} is not UTF-8") from None
        if len(found) > wanted:
            break
    if len(found) != wanted:
        more = "more than " if len(found) > wanted else ""
        raise BadBody(
            f"input {name!r} holds {more}{min(len(found), wanted)} elements, its shape is {wanted}"
        )
    array = np.empty(wanted, object)
    array[:] = found
    return array


def _too_large(spec: TensorSpec) -> BadBody:
    return BadBody(f"input {spec.name!r} holds a number too large for {spec.dtype}")
