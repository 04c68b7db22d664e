"""The models that benches serve, as ONNX files and as signed bundles. Input `x`, output `y`.

`small` is a net of convolutions on one row of 27,648 floats (96 x 96 x 3), about 0.3 ms a call;
`tiny` is a matrix product on 64, below 10 µs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgefleet_agent.runtime.onnx_engine import OnnxSession
from edgefleet_contract import bundle as b
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle

FLOATS = 96 * 96 * 3


@dataclass(frozen=True, slots=True)
class Net:
    """A model file and how wide its input is."""

    raw: bytes
    width: int

    def row(self, seed: int = 1) -> np.ndarray:
        """float32 [1, width]."""
        return np.random.default_rng(seed).random((1, self.width), np.float32)


def small() -> Net:
    """Two convolutions and a dense layer on a picture that comes as one row."""
    draw = np.random.default_rng(0).normal
    weights = {
        "A": draw(size=(48, 3, 3, 3)),
        "B": draw(size=(96, 48, 3, 3)),
        "C": draw(size=(96, 10)),
    }
    strides = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Reshape", ["x", "size"], ["picture"]),
        helper.make_node("Conv", ["picture", "A"], ["a"], **strides),
        helper.make_node("Relu", ["a"], ["a2"]),
        helper.make_node("Conv", ["a2", "B"], ["b"], **strides),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "C"], ["y"]),
    ]
    size = numpy_helper.from_array(np.array([-1, 3, 96, 96]), "size")
    return Net(_file(nodes, weights, FLOATS, size), FLOATS)


def tiny() -> Net:
    """A matrix product."""
    weights = {"W": np.random.default_rng(0).normal(size=(64, 10))}
    return Net(_file([helper.make_node("MatMul", ["x", "W"], ["y"])], weights, 64), 64)


NETS = {"small": small, "tiny": tiny}


def _file(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    width: int,
    *more: onnx.TensorProto,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])],
        [*more, *(numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items())],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    raw: bytes = made.SerializeToString()
    return raw


def make_bundle(root: Path, name: str, net: Net, key: PrivateKey) -> Path:
    """A signed bundle of it, whose golden vectors are what onnxruntime answers here."""
    folder = root / f"{name}-1"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_bytes(net.raw)
    x = np.concatenate([net.row(seed) for seed in (1, 2, 3)])
    y = OnnxSession(net.raw, threads=1).run({"x": x})["y"]
    np.savez(folder / "onnx" / "golden.npz", **{"input.0": x, "output.0": y})
    variant = b.Variant(
        name="onnx",
        format=b.Format.ONNX,
        precision="float32",
        model="onnx/model.onnx",
        golden="onnx/golden.npz",
        max_abs_err_e6=10,
        inputs=(b.TensorSpec("x", "float32", (-1, net.width)),),
        outputs=(b.TensorSpec("y", "float32", (-1, 10)),),
        runtimes={"onnxruntime": "1.0"},
    )
    files = (
        b.describe_file(folder, "onnx/golden.npz", b.Role.GOLDEN),
        b.describe_file(folder, "onnx/model.onnx", b.Role.MODEL),
    )
    document = b.render_manifest(b.Manifest(name, 1, 1, "0.1.0", (variant,), files))
    (folder / b.MANIFEST).write_bytes(document)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(document, key))
    return folder
