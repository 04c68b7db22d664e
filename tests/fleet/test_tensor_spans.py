"""The spans are where the bytes of the tensors are; damaged files have none, and cost no more."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_fleet.tensor_spans import tensor_spans

MODELS = Path(__file__).parents[1] / "vectors" / "models"


def onnx_file(tensors: dict[str, np.ndarray], *, raw: bool = True) -> bytes:
    onnx = pytest.importorskip("onnx", reason="comes with the converter")
    made = []
    for name, value in tensors.items():
        if raw:
            made.append(onnx.numpy_helper.from_array(value, name))
        else:
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            flat = value.ravel().tolist()
            made.append(onnx.helper.make_tensor(name, kind, value.shape, flat))
    graph = onnx.helper.make_graph([], "g", [], [], made)
    content: bytes = onnx.helper.make_model(graph).SerializeToString()
    return content


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "u8"])
def test_the_tensors_of_an_onnx_file_are_found_with_their_width(kind: str) -> None:
    value = np.random.default_rng(1).integers(0, 100, (4, 50)).astype(kind)
    content = onnx_file({"w": value, "small": value[:1, :1]})
    (span,) = tensor_spans(memoryview(content))
    assert content[span.start : span.end] == value.tobytes()
    assert (span.name.rpartition("/")[2], span.item) == ("w", value.itemsize)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_typed_data_is_found_as_raw_data_is(kind: str) -> None:
    value = np.random.default_rng(1).standard_normal(100).astype(kind)
    content = onnx_file({"w": value}, raw=False)
    (span,) = tensor_spans(memoryview(content))
    assert content[span.start : span.end] == value.tobytes()
    assert span.item == value.itemsize


def test_tensors_in_branches_are_found() -> None:
    content = (MODELS / "external_branch.onnx").read_bytes()
    (span,) = tensor_spans(memoryview(content))
    assert "else_branch" in span.name
    assert len(np.frombuffer(content[span.start : span.end], "f4")) == 640


def test_the_tensors_of_a_tflite_file_are_found_with_their_width() -> None:
    content = (MODELS / "linear1.tflite").read_bytes()
    found = {span.name: span for span in tensor_spans(memoryview(content))}
    assert {name: span.item for name, span in found.items()} == {"0/W": 4, "0/b": 4}
    weights = found["0/W"]
    numbers = np.frombuffer(content[weights.start : weights.end], "f4")
    assert numbers.size == 640
    assert np.abs(numbers).max() < 10
    small = (MODELS / "linear1_int8.tflite").read_bytes()
    assert {span.name: span.item for span in tensor_spans(memoryview(small))}["0/W"] == 1


@pytest.mark.parametrize("name", ["linear1.onnx", "linear1_int8.tflite"])
def test_a_damaged_file_has_spans_within_it_or_none(name: str) -> None:
    content = (MODELS / name).read_bytes()
    dice = random.Random(name)
    for _ in range(1000):
        mutant = bytearray(content[: dice.choice((len(content), dice.randrange(len(content))))])
        for _ in range(dice.choice((0, 1, 1, 4))):
            if mutant:
                mutant[dice.randrange(len(mutant))] = dice.randrange(256)
        check(bytes(mutant))


@given(st.binary(max_size=300))
def test_any_bytes_have_spans_within_them_or_none(raw: bytes) -> None:
    check(raw)
    check(raw[:4] + b"TFL3" + raw[4:])


def check(raw: bytes) -> None:
    end = 0
    for span in tensor_spans(memoryview(raw)):
        assert end <= span.start < span.end <= len(raw)
        end = span.end
