"""Which kind of model a file or folder is, told by its content; its name does not matter.

Reading is all that happens here, of the first bytes and of a ZIP's list: nothing is loaded. What
has no content is a factory, `module:function`, and is told by its form.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
from enum import StrEnum
from pathlib import Path
from typing import Final

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.sources import archive as zips

COMES_IN: Final = (
    "ONNX; TFLite; scikit-learn (.skops); PyTorch (torch.export, TorchScript, module:function); "
    "Keras (.keras, .h5); a SavedModel folder; XGBoost (.json, .ubj); LightGBM (.txt)"
)

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # 0x1950a86a20f9469cfc6c, pickled
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_XGBOOST_UBJ = re.compile(rb"\{[iUIlL][\x00-\x0f]*(learner|version|Config)")
_MAX_FOLDER_FILES: Final = 10_000
_MAX_FILE: Final = 2**31 - 1
"""Bytes that a protobuf message or a flatbuffer can have; readers of larger ones fail at random."""
_MAX_PARSED: Final = 256 * 2**20
"""Bytes of JSON that are parsed here; Python's objects take ten times as many."""


class Kind(StrEnum):
    """A kind of model that is recognised."""

    ONNX = "ONNX"
    SKOPS = "scikit-learn (skops)"
    PICKLE = "pickle (or joblib)"
    TFLITE = "TFLite"
    KERAS = "Keras"
    KERAS_H5 = "Keras (HDF5)"
    SAVED_MODEL = "TensorFlow SavedModel"
    TORCH_EXPORT = "PyTorch (torch.export)"
    TORCH_SCRIPT = "PyTorch (TorchScript)"
    TORCH_MODULE = "PyTorch (pickled module)"
    TORCH_WEIGHTS = "PyTorch (state dict)"
    FACTORY = "PyTorch (factory)"
    XGBOOST_JSON = "XGBoost (JSON)"
    XGBOOST_UBJ = "XGBoost (UBJSON)"
    LIGHTGBM = "LightGBM"


def recognise(path: Path) -> Kind:
    """The kind of model in a file or folder.

    Raises:
        OperatorError: it cannot be read, is empty or damaged, or is nothing that is known here.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists() and _FACTORY.fullmatch(str(path)):
        return Kind.FACTORY
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise OperatorError(f"cannot read the model {path}: {error.strerror}") from None
    if not head:
        raise OperatorError(f"the model {path} is empty")
    if head.startswith((_ZIP, _EMPTY_ZIP)):
        kind = _from_archive(zips.look_into(path))
    else:
        kind = _from_head(head)
    if kind is None:
        raise OperatorError(
            f"{path} is not a model that is known here", hint=f"what comes in: {COMES_IN}"
        )
    _refuse_part(path, kind)
    return kind


def _folder(path: Path) -> Kind:
    if not (path / "saved_model.pb").is_file():
        raise OperatorError(
            f"{path} is a directory without saved_model.pb", hint=f"what comes in: {COMES_IN}"
        )
    for count, inner in enumerate(path.rglob("*")):
        if count == _MAX_FOLDER_FILES:
            raise OperatorError(f"{path} holds more than {_MAX_FOLDER_FILES} files")
        if inner.is_symlink():
            raise OperatorError(f"{path} holds a link, {inner.name}: a model is files alone")
    return Kind.SAVED_MODEL


def _from_archive(archive: zips.Archive) -> Kind | None:
    if "schema.json" in archive.names:
        return Kind.SKOPS
    if "config.json" in archive.names and "metadata.json" in archive.names:
        return Kind.KERAS
    if archive.ends("archive_format", "serialized_exported_program.json"):
        return Kind.TORCH_EXPORT
    pickled = archive.ends("data.pkl")
    if pickled is None:
        return None
    if archive.ends("constants.pkl"):
        return Kind.TORCH_SCRIPT
    is_weights = zips.holds_tensors_alone(archive, pickled)
    return Kind.TORCH_WEIGHTS if is_weights else Kind.TORCH_MODULE


def _from_head(head: bytes) -> Kind | None:
    if head[4:8] == b"TFL3":
        return Kind.TFLITE
    if head.startswith(_HDF5):
        return Kind.KERAS_H5
    if _TORCH_MAGIC in head[:24]:
        return Kind.TORCH_MODULE
    if head.startswith(_COMPRESSED) or _is_pickle(head):
        return Kind.PICKLE
    if (boosted := _boosted(head)) is not None:
        return boosted
    return Kind.ONNX if _is_onnx(head) else None


def _boosted(head: bytes) -> Kind | None:
    if re.match(rb"tree\r?\nversion=v\d", head):
        return Kind.LIGHTGBM
    if _XGBOOST_UBJ.match(head):
        return Kind.XGBOOST_UBJ
    is_json = re.match(rb"\s*\{\s*\"(learner|version)\"\s*:", head)
    return Kind.XGBOOST_JSON if is_json else None


def _refuse_part(path: Path, kind: Kind) -> None:
    """Refuse a file that ends too early, or that is no whole model.

    Raises:
        OperatorError: saying so.
    """
    size = path.stat().st_size
    if kind in (Kind.ONNX, Kind.TFLITE) and size > _MAX_FILE:
        raise OperatorError(
            f"{path} has {size / 2**30:.1f} GiB, and {kind} files can have 2 GiB at most",
            hint="float16 weights halve a model; a larger one is for no device that is known here",
        )
    if kind is Kind.LIGHTGBM and not _mentions(path, b"\nend of trees"):
        raise OperatorError(
            f"{path} is a LightGBM model without its end",
            hint="it may be truncated: compare its size with the original",
        )
    if kind is Kind.KERAS_H5 and not _mentions(path, b"model_config"):
        raise OperatorError(
            f"{path} is HDF5 without a model_config: weights alone, or no Keras model",
            hint="save the whole model: model.save('m.keras')",
        )
    if kind is Kind.XGBOOST_JSON:
        if size > zips.MAX_BYTES:
            raise OperatorError(f"{path} has more than {zips.MAX_BYTES >> 30} GiB")
        if size > _MAX_PARSED:
            return  # XGBoost itself finds out, in a worker with bounded memory
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise OperatorError(
                f"{path} is a damaged XGBoost model: not JSON ({error})",
                hint="it may be truncated: compare its size with the original",
            ) from None
        if not isinstance(found, dict) or "learner" not in found:
            raise OperatorError(f"{path} is JSON, but not of an XGBoost model")


def _mentions(path: Path, word: bytes) -> bool:
    """Whether a word stands anywhere in a file."""
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            if word in tail + chunk:
                return True
            tail = chunk[-len(word) :]
    return False


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
