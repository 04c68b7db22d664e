"""Small ONNX models for tests: real graphs, random weights from a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def graph(
    nodes: Sequence[NodeProto],
    *,
    shape: Sequence[int | str],
    gives: Sequence[int | str],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    ir_version: int = 9,
) -> onnx.ModelProto:
    """A model from `x` to `y`, both float32."""
    made = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", FLOAT, list(gives))],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=ir_version)


def one(op: str, inputs: Sequence[str] = ("x",), output: str = "y", **given: object) -> NodeProto:
    """A node named after its operator and its output."""
    domain = "ai.onnx.ml" if op == "Scaler" else ""
    return helper.make_node(
        op, list(inputs), [output], name=f"{op}_{output}", domain=domain, **given
    )


def weights(*shape: int, seed: int = 0, scale: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape, scale=scale).astype(np.float32)


def mlp(opset: int = 18) -> onnx.ModelProto:
    """[batch, 4] -> 3 probabilities."""
    return graph(
        [
            one("Gemm", ["x", "w1", "b1"], "a"),
            one("Relu", ["a"], "h"),
            one("Gemm", ["h", "w2", "b2"], "l", transB=1),
            one("Softmax", ["l"], "y", axis=-1),
        ],
        shape=["batch", 4],
        gives=["batch", 3],
        constants={
            "w1": weights(4, 8, seed=1, scale=1.0),
            "b1": weights(8, seed=2),
            "w2": weights(3, 8, seed=3, scale=1.0),
            "b2": weights(3, seed=4),
        },
        opset=opset,
    )


def cnn() -> onnx.ModelProto:
    """[batch, 2, 9, 9] images: two convolutions, one of them depthwise, pools, 5 probabilities."""
    return graph(
        [
            one("Mul", ["x", "s"], "x0"),
            one("Conv", ["x0", "w1", "b1"], "c1", pads=[1, 1, 1, 1]),
            one("Relu", ["c1"], "r1"),
            one("Conv", ["r1", "w2"], "c2", group=6, pads=[1, 1, 1, 1], strides=[2, 2]),
            one("Relu", ["c2"], "r2"),
            one("MaxPool", ["r2"], "p", kernel_shape=[2, 2], strides=[2, 2]),
            one("Flatten", ["p"], "f"),
            one("Gemm", ["f", "w3"], "l"),
            one("Softmax", ["l"], "y"),
        ],
        shape=["batch", 2, 9, 9],
        gives=["batch", 5],
        constants={
            "s": np.asarray(0.5, np.float32),
            "w1": weights(6, 2, 3, 3, seed=1),
            "b1": weights(6, seed=2),
            "w2": weights(6, 1, 3, 3, seed=3),
            "w3": weights(24, 5, seed=4),
        },
    )


def save(model: onnx.ModelProto, folder: Path, examples: np.ndarray) -> Path:
    """The model with data beside it that fits `recipe(folder)`."""
    np.save(folder / "calibration.npy", examples)
    np.savez(folder / "held_out.npz", x=examples)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def examples(*shape: int, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
