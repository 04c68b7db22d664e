"""Text, whole numbers, scalars and open dimensions, through every runtime, with real models."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet_agent.ports import ModelSpec
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.engine import CannotRun, Session
from edgefleet_agent.runtime.engines import open_session
from edgefleet_agent.runtime.golden import read_golden
from edgefleet_contract.bundle import Format, TensorSpec, Variant
from tests.agent import models
from tests.agent.hosting import running

onnx = pytest.importorskip("onnx")
flatbuffers = pytest.importorskip("flatbuffers")
tfl = pytest.importorskip("ai_edge_litert.schema_py_generated")

Shape = Sequence[int | str]


def onnx_model(op: str, dtype: str, shape: Shape, *, inputs: int = 1) -> bytes:
    """`y = op(x, x, …)`, of one dtype and shape."""
    helper = onnx.helper
    kind = (
        onnx.TensorProto.STRING
        if dtype == "string"
        else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    )
    graph = helper.make_graph(
        [helper.make_node(op, ["x"] * inputs, ["y"])],
        "test",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", kind, list(shape))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def tflite_model(
    operator: int,
    options: tuple[int, Any],
    tensors: Sequence[tuple[str, int, tuple[int, ...], bytes]],
    takes: list[int],
) -> bytes:
    """One operator from tensor 0 (`x`) to the last (`y`); -1 is an open dimension."""
    model, graph, step = tfl.ModelT(), tfl.SubGraphT(), tfl.OperatorT()
    model.version, model.buffers, graph.tensors = 3, [tfl.BufferT()], []
    for name, kind, shape, constant in tensors:
        tensor = tfl.TensorT()
        tensor.name, tensor.type = name, kind
        tensor.shape = [max(size, 1) for size in shape]
        tensor.shapeSignature = list(shape)
        tensor.buffer = len(model.buffers) if constant else 0
        if constant:
            buffer = tfl.BufferT()
            buffer.data = np.frombuffer(constant, np.uint8)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    last = len(tensors) - 1
    step.inputs, step.outputs = takes, [last]
    step.builtinOptionsType, step.builtinOptions = options
    graph.inputs, graph.outputs, graph.operators = [0], [last], [step]
    code = tfl.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = operator, operator, 4
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tflite_double(dtype: str, shape: tuple[int, ...]) -> bytes:
    """`y = x + x`."""
    kind = {"float32": 0, "int32": 2, "int64": 4}[dtype]
    options = tfl.BuiltinOptions.AddOptions, tfl.AddOptionsT()
    tensors = [("x", kind, shape, b""), ("y", kind, shape, b"")]
    return tflite_model(tfl.BuiltinOperator.ADD, options, tensors, [0, 0])


def tflite_swap() -> bytes:
    """The second and the first of two texts."""
    places = np.array([1, 0], np.int32).tobytes()
    options = tfl.BuiltinOptions.GatherOptions, tfl.GatherOptionsT()
    text = tfl.TensorType.STRING
    tensors = [("x", text, (2,), b""), ("i", 2, (2,), places), ("y", text, (2,), b"")]
    return tflite_model(tfl.BuiltinOperator.GATHER, options, tensors, [0, 1])


ENGINES = [("onnxruntime", "cpu"), ("litert", "xnnpack"), ("litert", "cpu")]


def doubling(engine: str, accelerator: str, dtype: str, shape: tuple[int, ...]) -> Session:
    if engine == "onnxruntime":
        names = [f"d{i}" if size == -1 else size for i, size in enumerate(shape)]
        raw = onnx_model("Add", dtype, names, inputs=2)
    else:
        raw = tflite_double(dtype, shape)
    return open_session(engine, raw, threads=1, accelerator=accelerator)


@pytest.mark.parametrize(("engine", "accelerator"), ENGINES)
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_whole_numbers_are_kept_whole(engine: str, accelerator: str, dtype: str) -> None:
    session = doubling(engine, accelerator, dtype, (-1, 2))
    assert session.inputs == (TensorSpec("x", dtype, (-1, 2)),)
    large = np.array([[2 ** (30 if dtype == "int64" else 29) + 1, -3]], dtype)
    if dtype == "int64":
        large = large + 2**61  # no float holds it
    y = session.run({"x": large})["y"]
    assert (y.dtype.name, y.tolist()) == (dtype, (large * 2).tolist())


@pytest.mark.parametrize(("engine", "accelerator"), ENGINES)
def test_open_dimensions_may_change_from_call_to_call(engine: str, accelerator: str) -> None:
    session = doubling(engine, accelerator, "float32", (-1, -1, 3))
    assert session.inputs == (TensorSpec("x", "float32", (-1, -1, 3)),)
    for shape in ((2, 5, 3), (1, 1, 3), (7, 2, 3), (2, 5, 3), (2, 5, 3), (1, 40, 3)):
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        y = session.run({"x": x})["y"]
        assert (y.shape, np.array_equal(y, x * 2)) == (shape, True)


@pytest.mark.parametrize(("engine", "accelerator"), ENGINES)
def test_a_scalar_goes_in_and_comes_out(engine: str, accelerator: str) -> None:
    session = doubling(engine, accelerator, "float32", ())
    assert session.inputs == (TensorSpec("x", "float32", ()),)
    for value in (1.5, -2.0):
        y = session.run({"x": np.array(value, np.float32)})["y"]
        assert (isinstance(y, np.ndarray), y.shape, y.dtype.name) == (True, (), "float32")
        assert float(y) == value * 2


@pytest.mark.parametrize("accelerator", ["xnnpack", "cpu"])
def test_text_goes_through_tflite(accelerator: str) -> None:
    session = open_session("litert", tflite_swap(), threads=1, accelerator=accelerator)
    assert session.inputs == (TensorSpec("x", "string", (2,)),)
    for words in (["grüße", ""], ["a", "\u6e7f\u5ea6"], ["x" * 100_000, "y"]):
        y = session.run({"x": np.array(words, object)})["y"]
        assert (y.dtype.kind, y.tolist()) == ("O", [words[1], words[0]])


def test_text_that_is_none_is_said_to_be_none() -> None:
    session = open_session("litert", tflite_swap(), threads=1, accelerator="xnnpack")
    with pytest.raises(CannotRun, match="can't decode byte"):
        session.run({"x": np.array([b"\xff", b"a"], object)})
    assert session.run({"x": np.array(["b", "a"], object)})["y"].tolist() == ["a", "b"]


def written_spec(
    folder: Path, raw: bytes, kind: str, x: np.ndarray, y: np.ndarray, declared: TensorSpec
) -> ModelSpec:
    """A spec of model bytes, with these golden vectors."""
    output = TensorSpec("y", declared.dtype, declared.shape)
    return models.make_spec(
        folder, f"made.{kind}", {declared: x}, {output: y}, slot=kind, content=raw
    )


def test_a_fixed_batch_is_warmed_up_with_a_whole_batch() -> None:
    """Also where there are just as many golden vectors as it takes at once."""
    both = TensorSpec("x", "float32", (2, 3)), TensorSpec("y", "float32", (2, 3))
    variant = Variant(
        *("onnx-fp32", Format.ONNX, "fp32", "m.onnx", "g.npz", 0, both[:1], both[1:], {})
    )
    source, x = io.BytesIO(), np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(source, **{"input.0": x, "output.0": x * 2})
    source.seek(0)
    golden = read_golden(source, variant)
    session = open_session(
        "onnxruntime", onnx_model("Add", "float32", [2, 3], inputs=2), threads=1, accelerator="cpu"
    )
    assert np.array_equal(session.run(golden.first.feeds)["y"], x * 2)


def test_all_of_it_is_served(tmp_path: Path) -> None:
    """By the protocols, in worker processes: open sizes, text and scalars."""
    x = np.arange(30, dtype=np.float32).reshape(2, 5, 3)
    shape = TensorSpec("x", "float32", (-1, -1, 3))
    raws = {
        "onnx": onnx_model("Add", "float32", ["a", "b", 3], inputs=2),
        "tflite": tflite_double("float32", (-1, -1, 3)),
    }
    with running() as here:
        specs = tuple(written_spec(tmp_path, r, k, x, x * 2, shape) for k, r in raws.items())
        assert here.do(here.host.activate(specs)) is None
        for slot in raws:
            for size in (5, 1, 9, 5):
                rows = np.full((2, size, 3), size, np.float32)
                answer = here.predict(slot, {"instances": rows.tolist()})
                assert answer.json() == {"predictions": (rows * 2).tolist()}
    words = np.array(["b", "a"])
    spec = written_spec(
        tmp_path, tflite_swap(), "tflite", words, words[::-1], TensorSpec("x", "string", (2,))
    )
    point = np.array([1.0, 4.0], np.float32)
    scalar = written_spec(
        tmp_path,
        onnx_model("Add", "float32", [], inputs=2),
        "onnx",
        point,
        point * 2,
        TensorSpec("x", "float32", ()),
    )
    with running(accelerators=Accelerators(("cpu",))) as here:
        assert here.do(here.host.activate((spec, scalar))) is None
        answer = here.predict("tflite", {"instances": ["grüße", "a"]})
        assert answer.json() == {"predictions": ["a", "grüße"]}
        tensor = {"name": "x", "datatype": "FP32", "shape": [], "data": [3.5]}
        answer = here.ask("POST", "/v2/models/onnx/infer", {"inputs": [tensor]})
        assert answer.status == 200, answer.body
        (output,) = answer.json()["outputs"]
        assert (output["shape"], output["data"]) == ([], [7.0])
