from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgefleet_contract.bundle import Format
from edgefleet_converter.metrics import relative_err
from edgefleet_converter.passes.fold_affine import fold_affine
from edgefleet_converter.runners import open_model, run_all
from tests.converter import models
from tests.converter.models import graph, one, weights

S = weights(4, seed=1, scale=1.0)
W = weights(4, 3, seed=2, scale=1.0)
B = weights(3, seed=3)


def chain(nodes: Sequence[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    return graph(nodes, shape=["n", 4], gives=["n", 3], constants=constants)


FOLDED = {
    "a scale": chain([one("Mul", ["x", "s"], "a"), one("Gemm", ["a", "w", "b"])], s=S, w=W, b=B),
    "a divisor": chain([one("Div", ["x", "s"], "a"), one("MatMul", ["a", "w"])], s=S, w=W),
    "a shift": chain([one("Sub", ["x", "s"], "a"), one("Gemm", ["a", "w"])], s=S, w=W),
    "a standard scaler": chain(
        [
            one("Sub", ["x", "m"], "a"),
            one("Div", ["a", "s"], "c"),
            one("MatMul", ["c", "w"], "d"),
            one("Add", ["d", "b"]),
        ],
        m=weights(1, 4, seed=5),
        s=S,
        w=W,
        b=B.reshape(1, 3),
    ),
    "a transposed layer": chain(
        [one("Add", ["x", "s"], "a"), one("Gemm", ["a", "w", "b"], transB=1, alpha=0.5, beta=2.0)],
        s=S,
        w=np.ascontiguousarray(W.T),
        b=B,
    ),
}
KEPT = {
    "a scale that is used twice": chain(
        [
            one("Mul", ["x", "s"], "a"),
            one("Gemm", ["a", "w"], "c"),
            one("ReduceSum", ["a"], "d"),
            one("Add", ["c", "d"]),
        ],
        s=S,
        w=W,
    ),
    "a division by zero": chain(
        [one("Div", ["x", "s"], "a"), one("Gemm", ["a", "w"])], s=np.zeros(4, np.float32), w=W
    ),
    "a scale that is computed": chain([one("Mul", ["x", "x"], "a"), one("Gemm", ["a", "w"])], w=W),
}


def run(model: onnx.ModelProto, folder: Path, inputs: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "m.onnx")
    (found,) = run_all(open_model(folder / "m.onnx", Format.ONNX), (inputs,))
    return np.asarray(found)


@pytest.mark.parametrize("name", FOLDED)
def test_scaling_disappears_into_the_layer_and_the_function_stays(
    name: str, tmp_path: Path
) -> None:
    inputs = models.examples(50, 4)
    expected = run(FOLDED[name], tmp_path, inputs)
    folded = onnx.ModelProto()
    folded.CopyFrom(FOLDED[name])
    fold_affine(folded)
    assert [node.op_type for node in folded.graph.node] == ["Gemm"]
    assert relative_err(expected, run(folded, tmp_path, inputs)) < 2e-6


@pytest.mark.parametrize("name", KEPT)
def test_what_cannot_be_folded_is_left_alone(name: str) -> None:
    before = KEPT[name].SerializeToString()
    fold_affine(KEPT[name])
    assert KEPT[name].SerializeToString() == before


def test_a_bias_that_an_output_shows_is_not_taken_away(tmp_path: Path) -> None:
    model = chain([one("MatMul", ["x", "w"], "c"), one("Add", ["c", "b"])], w=W, b=B)
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", models.FLOAT, ["n", 3]))
    fold_affine(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add"]
