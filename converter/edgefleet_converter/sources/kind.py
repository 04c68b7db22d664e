"""Which kind of model a file is, told by its content; its name does not matter.

Reading the first bytes is all that happens here: nothing is loaded.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from enum import StrEnum
from pathlib import Path
from typing import Final

from edgefleet_contract.errors import OperatorError

COMES_IN: Final = "ONNX, scikit-learn saved by skops (.skops), TFLite"

_ZIP = b"PK\x03\x04"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")


class Kind(StrEnum):
    """A kind of model that is recognised."""

    ONNX = "ONNX"
    SKOPS = "scikit-learn (skops)"
    PICKLE = "pickle (or joblib)"
    TFLITE = "TFLite"
    KERAS = "Keras"
    TORCH = "PyTorch"


def recognise(path: Path) -> Kind:
    """The kind of model in a file.

    Raises:
        OperatorError: it cannot be read, is empty, or is nothing that is known here.
    """
    if path.is_dir():
        raise OperatorError(f"{path} is a directory", hint=f"what comes in: {COMES_IN}")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise OperatorError(f"cannot read the model {path}: {error.strerror}") from None
    if not head:
        raise OperatorError(f"the model {path} is empty")
    kind = _from_archive(path) if head.startswith(_ZIP) else _from_head(head)
    if kind is None:
        raise OperatorError(
            f"{path} is not a model that is known here", hint=f"what comes in: {COMES_IN}"
        )
    return kind


def _from_archive(path: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None
    if "schema.json" in names:
        return Kind.SKOPS
    if "model.weights.h5" in names:
        return Kind.KERAS
    if any(name.endswith(("/data.pkl", "/version", ".pt2")) for name in names):
        return Kind.TORCH
    return None


def _from_head(head: bytes) -> Kind | None:
    if head[4:8] == b"TFL3":
        return Kind.TFLITE
    if head.startswith(_HDF5):
        return Kind.KERAS
    if head.startswith(_COMPRESSED) or _is_pickle(head):
        return Kind.PICKLE
    return Kind.ONNX if _is_onnx(head) else None


def _is_pickle(head: bytes) -> bool:
    """Whether the bytes begin with a protocol 2 to 5 pickle: PROTO, then opcodes that parse."""
    if head[0] != 0x80 or len(head) < 3 or not 2 <= head[1] <= 5:
        return False
    try:
        for count, (opcode, _, _) in enumerate(pickletools.genops(io.BytesIO(head))):
            if count == 3 or opcode.name == "STOP":
                return True
    except ValueError:
        return False
    return False


def _is_onnx(head: bytes) -> bool:
    """Whether the bytes begin as a protobuf ModelProto: known fields with their wire types.

    The numbers are those of onnx.proto: 1 ir_version, 5 model_version (varint); 2 producer_name,
    3 producer_version, 4 domain, 6 doc_string, 7 graph, 8 opset_import, 14 metadata_props, 20, 25,
    26 (length-delimited).
    """
    at, seen = 0, 0
    while at < len(head) and seen < 4:
        tag, at = _varint(head, at)
        field, wire = tag >> 3, tag & 7
        if field in (1, 5) and wire == 0:
            _, at = _varint(head, at)
        elif field in (2, 3, 4, 6, 7, 8, 14, 20, 25, 26) and wire == 2:
            length, at = _varint(head, at)
            if at < 0:
                return False
            if field == 7:
                return length > 0
            at += length
        else:
            return False
        if at < 0:
            return False
        seen += 1
    return seen > 0


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The varint at an offset and the offset after it, or -1 for one that does not end."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(raw):
            return 0, -1
        value |= (raw[at] & 0x7F) << shift
        at += 1
        if raw[at - 1] < 0x80:
            return value, at
    return 0, -1
