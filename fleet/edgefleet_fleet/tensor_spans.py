"""Where the tensors lie in a model file: spans of bytes, by name, with the width of their items.

Reads the wire format of ONNX (protobuf) and TFLite (flatbuffer) without their libraries, which a
control room does not have. Field numbers: onnx.proto3; slots: schema.fbs of TFLite. A file that is
neither, or that is damaged, has no spans: whoever asked treats it as plain bytes.

Pure; what points outside of the file is not followed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SMALLEST: Final = 32
"""Tensors of fewer bytes are left to what lies around them."""
_MAX_DEPTH: Final = 16
_MAX_TENSORS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Span:
    """A tensor's bytes: `start` to `end`; `item` is the width of one number, bytes."""

    name: str
    start: int
    end: int
    item: int


class _Damaged(Exception):
    """The bytes are not what their first ones promised."""


def tensor_spans(raw: memoryview) -> tuple[Span, ...]:
    """The spans of a file in the order in which they lie in it; none overlap."""
    try:
        spans = list(_tflite(raw) if bytes(raw[4:8]) == b"TFL3" else _onnx(raw))
    except (_Damaged, struct.error, IndexError):
        return ()
    spans = sorted((span for span in spans if span.end - span.start >= SMALLEST), key=_start)
    apart = all(one.end <= other.start for one, other in pairwise(spans))
    return tuple(spans) if apart else ()


def _start(span: Span) -> int:
    return span.start


# ONNX: message -> field number -> the message in it.
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# What a message is called by: a node by its first output. A graph is not: exporters number them.
_CALLED: Final = {"function": 1, "node": 2, "attribute": 1, "tensor": 8}
_ONNX_ITEMS: Final = {
    kind: item
    for item, kinds in ((2, (4, 5, 10, 16)), (4, (1, 6, 12, 14)), (8, (7, 11, 13, 15)))
    for kind in kinds
}
_FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA = 4, 9, 10


def _onnx(raw: memoryview) -> Iterator[Span]:
    yield from _message(raw, 0, len(raw), "model", "", 0)


def _message(
    raw: memoryview, start: int, end: int, kind: str, above: str, depth: int
) -> Iterator[Span]:
    if depth > _MAX_DEPTH:
        raise _Damaged
    called = _CALLED.get(kind)
    name = ""
    children: list[tuple[str, int, int]] = []
    data: list[tuple[int, int, int]] = []
    data_type = 0
    for number, at, stop, value in _fields(raw, start, end):
        if number == called and not name and stop > at:
            name = bytes(raw[at:stop]).decode("utf-8", "replace")
        if kind == "tensor":
            if number == 2:
                data_type = value
            elif number in (_FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA) and stop > at:
                data.append((number, at, stop))
        elif number in _INSIDE[kind] and stop > at:
            children.append((_INSIDE[kind][number], at, stop))
    path = f"{above}/{name}"
    for number, at, stop in data:
        item = {_FLOAT_DATA: 4, _DOUBLE_DATA: 8}.get(number) or _ONNX_ITEMS.get(data_type, 1)
        yield Span(path, at, stop, item)
    for child, at, stop in children:
        yield from _message(raw, at, stop, child, path, depth + 1)


def _fields(raw: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field's number, the bounds of its bytes, and the number that it is if it is one."""
    while at < end:
        key, at = _varint(raw, at, end)
        wire, value, size = key & 7, 0, 0
        if wire == 0:
            value, at = _varint(raw, at, end)
        elif wire == 2:
            size, at = _varint(raw, at, end)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise _Damaged
        if at + size > end:
            raise _Damaged
        yield key >> 3, at, at + size, value
        at += size


def _varint(raw: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Damaged


# TFLite: slots of tables, and the width of a number by tensor type.
_MODEL_SUBGRAPHS, _MODEL_BUFFERS, _SUBGRAPH_TENSORS, _BUFFER_DATA = 8, 12, 4, 4
_TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME = 6, 8, 10
_TFLITE_ITEMS: Final = {
    kind: item
    for item, kinds in ((2, (1, 7, 16, 18)), (4, (0, 2, 8, 15)), (8, (4, 10, 11, 12)))
    for kind in kinds
}


def _tflite(raw: memoryview) -> Iterator[Span]:
    model = _u32(raw, 0)
    buffers = list(_tables(raw, _slot(raw, model, _MODEL_BUFFERS)))
    seen = {0}
    for number, subgraph in enumerate(_tables(raw, _slot(raw, model, _MODEL_SUBGRAPHS))):
        for tensor in _tables(raw, _slot(raw, subgraph, _SUBGRAPH_TENSORS)):
            at = _slot(raw, tensor, _TENSOR_BUFFER)
            index = _u32(raw, at) if at else 0
            if index in seen:
                continue
            seen.add(index)
            start, end = _vector(raw, _slot(raw, buffers[index], _BUFFER_DATA))
            kind = _slot(raw, tensor, _TENSOR_TYPE)
            name_at, name_end = _vector(raw, _slot(raw, tensor, _TENSOR_NAME))
            name = bytes(raw[name_at:name_end]).decode("utf-8", "replace")
            item = _TFLITE_ITEMS.get(raw[kind] if kind else 0, 1)
            yield Span(f"{number}/{name}", start, end, item)


def _u32(raw: memoryview, at: int) -> int:
    if at < 0:
        raise _Damaged
    found: int = struct.unpack_from("<I", raw, at)[0]
    return found


def _slot(raw: memoryview, table: int, slot: int) -> int:
    """Where a field of a table lies; 0 where it has its default."""
    vtable = table - struct.unpack_from("<i", raw, table)[0]
    if vtable < 0 or slot + 2 > struct.unpack_from("<H", raw, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", raw, vtable + slot)[0]
    return table + offset if offset else 0


def _vector(raw: memoryview, at: int, width: int = 1) -> tuple[int, int]:
    """The bounds of the elements of the vector (or string) that a field refers to."""
    if not at:
        return 0, 0
    begin = at + _u32(raw, at)
    start = begin + 4
    end = start + width * _u32(raw, begin)
    if end > len(raw):
        raise _Damaged
    return start, end


def _tables(raw: memoryview, at: int) -> Iterator[int]:
    start, end = _vector(raw, at, 4)
    if end - start > 4 * _MAX_TENSORS:
        raise _Damaged
    for place in range(start, end, 4):
        yield place + _u32(raw, place)
