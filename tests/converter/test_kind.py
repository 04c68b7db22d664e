from __future__ import annotations

import contextlib
import pickle
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.pipeline import Built
from edgefleet_converter.sources.kind import Kind, recognise
from tests.converter import models
from tests.converter.conftest import Digits


def test_the_content_decides_not_the_name(built: Built, digits: Digits, tmp_path: Path) -> None:
    real = {
        built.path / "onnx-int8" / "model.onnx": Kind.ONNX,
        built.path / "tflite-int8" / "model.tflite": Kind.TFLITE,
        digits.model: Kind.SKOPS,
    }
    for source, kind in real.items():
        copy = tmp_path / "model.bin"
        copy.write_bytes(source.read_bytes())
        assert recognise(copy) is kind


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_in_use_is_recognised(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(pickle.dumps({"a": [1, 2]}, protocol=protocol))
    assert recognise(path) is Kind.PICKLE
    path.write_bytes(zlib.compress(path.read_bytes(), 3))
    assert recognise(path) is Kind.PICKLE


@pytest.mark.parametrize("text", [b"", b"hello, world", b"PK\x03\x04broken", b"\x08", b"\x80\x04"])
def test_what_is_no_model_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(text)
    with pytest.raises(OperatorError):
        recognise(path)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"is a directory without saved_model\.pb"):
        recognise(tmp_path)


@given(raw=st.binary(max_size=200))
def test_no_bytes_make_it_stumble(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(raw)
    with contextlib.suppress(OperatorError):
        assert recognise(path) in Kind


def test_an_onnx_cut_anywhere_after_its_head_is_still_called_onnx(tmp_path: Path) -> None:
    raw = models.mlp().SerializeToString()
    path = tmp_path / "m"
    path.write_bytes(raw[: len(raw) // 2])
    assert recognise(path) is Kind.ONNX


@pytest.mark.parametrize(
    ("head", "kind"), [(b"\x08\x09\x3a\xff\xff\xff\xff\x0a", "ONNX"), (b"\x1c\0\0\0TFL3", "TFLite")]
)
def test_what_no_reader_of_its_format_can_hold_is_refused_unread(
    tmp_path: Path, head: bytes, kind: str
) -> None:
    path = tmp_path / "model"
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(2**31)  # sparse: no bytes are on the disk
    with pytest.raises(OperatorError, match=rf"has 2\.0 GiB, and {kind} files can have 2 GiB"):
        recognise(path)


@pytest.mark.parametrize("head", [b"tree\nversion=v4\n", b"\x89HDF\r\n\x1a\n"])
def test_a_long_line_is_not_read_into_memory(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(100 * 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(OperatorError):
            recognise(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
