"""Finds tensors of an ONNX file whose data lies in another file, without the `onnx` package.

onnxruntime resolves such references against the working directory even for a model given as bytes,
so a signed file could pull in bytes that nobody signed. The walk reads the protobuf wire format and
follows only the fields through which a TensorProto can be reached. Field numbers: onnx.proto3.

A tensor of the graph itself whose bytes lie in a file that was signed too is `Placed`: the caller
puts that file's bytes into its place, and the runtime resolves nothing.

Pure. Bytes that are not protobuf raise `NotOnnx`; whether the graph makes sense is the runtime's
to judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_EXTERNAL: Final = 1
_MAX_DEPTH: Final = 64

# message -> field number -> the message in it. "tensor" is what we look for.
_PATHS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


class NotOnnx(Exception):
    """The bytes are not a protobuf message."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor whose bytes lie in another file: `location`, from `offset` on, `length` of them.

    `kind` is the number of its data type; `is_weight` says that it is an initialiser of the graph
    itself, not of a branch or an attribute.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int
    is_weight: bool


def external_tensors(raw: bytes) -> list[str]:
    """The names of tensors that refer to another file; see `placed_tensors`."""
    return [tensor.name for tensor in placed_tensors(raw)]


def placed_tensors(raw: bytes) -> list[Placed]:
    """The tensors that refer to another file.

    Raises:
        NotOnnx: the bytes are cut short, or not protobuf, or nested past reason.
    """
    return list(_walk(memoryview(raw), "model", 0))


def _walk(view: memoryview, kind: str, depth: int) -> Iterator[Placed]:
    if depth > _MAX_DEPTH:
        raise NotOnnx(f"graphs nested more than {_MAX_DEPTH} deep")
    inside = _PATHS[kind]
    for number, value in _fields(view):
        child = inside.get(number)
        if child is None or not isinstance(value, memoryview):
            continue
        if child == "tensor":
            yield from _external(value, is_weight=kind == "graph" and depth == 1 and number == 5)
        else:
            yield from _walk(value, child, depth + 1)


def _external(tensor: memoryview, *, is_weight: bool) -> Iterator[Placed]:
    name, kind, found = "", 0, False
    shape: list[int] = []
    told: dict[str, str] = {}
    for number, value in _fields(tensor):
        if number == 1:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode("utf-8", "replace")
        elif number == 13 and isinstance(value, memoryview):
            found = True
            texts = {n: bytes(v) for n, v in _fields(value) if isinstance(v, memoryview)}
            key, text = (texts.get(n, b"").decode("utf-8", "replace") for n in (1, 2))
            told[key] = text
        elif number == 13 or (number == 14 and value == _EXTERNAL):
            found = True
    if found:
        offset, length = (_number(told.get(key, "")) for key in ("offset", "length"))
        place = told.get("location", "")
        yield Placed(name, kind, tuple(shape), place, offset, length, is_weight)


def _number(text: str) -> int:
    """A whole number in text; -1 where there is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def _varints(view: memoryview) -> Iterator[int]:
    """The numbers of a packed list."""
    at = 0
    while at < len(view):
        number, at = _varint(view, at)
        yield number


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Each field's number and value: bytes of a length-delimited one, else the number (or 0)."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        wire = key & 7
        if wire == 0:
            number, at = _varint(view, at)
            yield key >> 3, number
            continue
        if wire == 2:
            size, at = _varint(view, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise NotOnnx(f"wire type {wire} at byte {at}")
        if at + size > len(view):
            raise NotOnnx(f"a field runs past the end at byte {at}")
        yield key >> 3, (view[at : at + size] if wire == 2 else 0)
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(view) or shift > 63:
            raise NotOnnx(f"a number runs past the end at byte {at}")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
