"""What is taken out of an int8 file is nothing that anybody computes with."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgefleet_converter.passes.slim_onnx import slim

FLOAT = TensorProto.FLOAT


def _model() -> onnx.ModelProto:
    """y = round(x w) + (the same), in 8 bits; constants that are equal, names that are long."""
    constants = {
        "a_long_name_of_weights": np.arange(-8, 8, dtype=np.int8).reshape(4, 4),
        "_0": np.float32(0.25),
        "scale_again": np.float32(0.25),
        "zero": np.uint8(128),
        "zero_again": np.uint8(128),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["a_long_name_of_weights", "_0"], ["weights"]),
        helper.make_node("MatMul", ["x", "weights"], ["product"], name="layer", doc_string="why"),
        helper.make_node("QuantizeLinear", ["product", "_0", "zero"], ["eight"]),
        helper.make_node("DequantizeLinear", ["eight", "scale_again", "zero_again"], ["back"]),
        helper.make_node("Clip", ["back", "", ""], ["bounded"]),
        helper.make_node("Add", ["bounded", "product"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        value_info=[helper.make_tensor_value_info("product", FLOAT, ["n", 4])],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _run(model: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_slim_file_computes_the_same_under_the_same_borders() -> None:
    model = _model()
    before, size = _run(model), len(model.SerializeToString())
    slim(model)
    onnx.checker.check_model(model, full_check=True)
    assert _run(model).tobytes() == before.tobytes()
    assert len(model.SerializeToString()) < 0.75 * size
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == ["y"]
    assert len(model.graph.initializer) == 3  # weights, a scale, a zero point
    assert not model.graph.value_info
    again = model.SerializeToString()
    slim(model)
    assert model.SerializeToString() == again


def test_a_short_name_never_takes_that_of_a_border() -> None:
    model = _model()
    model.graph.input[0].name = model.graph.node[1].input[0] = "_3"
    slim(model)
    inner = [name for node in model.graph.node for name in node.output]
    assert "_3" not in inner
    onnx.checker.check_model(model, full_check=True)


def test_a_graph_in_a_graph_is_left_alone() -> None:
    model = _model()
    then = helper.make_graph(
        [helper.make_node("Identity", ["product"], ["z"])],
        "then",
        [],
        [helper.make_tensor_value_info("z", FLOAT, ["n", 4])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "is_so"))
    chosen = helper.make_node("If", ["is_so"], ["other"], then_branch=then, else_branch=then)
    model.graph.node.append(chosen)
    before = model.SerializeToString()
    slim(model)
    assert model.SerializeToString() == before
