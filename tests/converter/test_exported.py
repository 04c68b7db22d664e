"""What is taken out of an exporter's ONNX so that the same model is the same file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.sources import exported


def counted(first: int, second: int, *, reverse: bool = False) -> onnx.ModelProto:
    """y = x * 2 + 3 as tf2onnx writes it, its constants counted and ordered by chance."""
    two, three = f"const_fold_opt__{first}", f"const_fold_opt__{second}"
    nodes = [
        helper.make_node("Mul", ["x__1", two], [f"Mul__{first}:0"], name=f"Mul__{first}"),
        helper.make_node("Add", [f"Mul__{first}:0", three], ["y__2"], name="Add__9"),
    ]
    constants = [
        numpy_helper.from_array(np.asarray([2.0], np.float32), two),
        numpy_helper.from_array(np.asarray([3.0], np.float32), three),
    ]
    value = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1]) for n in ("x__1", "y__2")
    ]
    graph = helper.make_graph(
        nodes, "g", value[:1], value[1:], constants[::-1] if reverse else constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", exported.OPSET)])


def test_names_that_an_exporter_counts_do_not_change_the_file() -> None:
    one, other = counted(431, 430), counted(7, 429, reverse=True)
    assert one.SerializeToString() != other.SerializeToString()
    for model in (one, other):
        exported.clean(model)
        onnx.checker.check_model(model, full_check=True)
    assert [node.name for node in one.graph.node] == ["Mul__1", "Add__1"]
    assert list(one.graph.node[1].input) == ["Mul__1:0", "const_fold_opt__2"]
    assert one.SerializeToString() == other.SerializeToString()
    assert one.graph.input[0].name == "x__1"
    assert one.graph.output[0].name == "y__2"


def test_the_constants_of_inner_graphs_are_named_as_their_users_name_them() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "c__5"], ["z__6"], name="Add__6")],
        *("then", [], [helper.make_tensor_value_info("z__6", TensorProto.FLOAT, ["n", 1])]),
    )
    nodes = [helper.make_node("If", ["is_it"], ["y"], then_branch=inner, else_branch=inner)]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1]) for n in "xy")
    is_it = helper.make_tensor_value_info("is_it", TensorProto.BOOL, [])
    constants = [numpy_helper.from_array(np.asarray([1.0], np.float32), "c__5")]
    graph = helper.make_graph(nodes, "g", [x, is_it], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", exported.OPSET)])
    exported.clean(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.initializer[0].name == "c__1"


def test_another_opset_than_was_asked_for_is_refused() -> None:
    model = counted(1, 2)
    model.opset_import[0].version = exported.OPSET + 1
    with pytest.raises(OperatorError, match="opset"):
        exported.clean(model)
