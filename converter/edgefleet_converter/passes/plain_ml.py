"""Operators of scikit-learn in ONNX said by plain ones, where those compute the same.

Scaler, LinearClassifier, LinearRegressor and Normalizer of `ai.onnx.ml` have no inferred shapes, no
int8 form and no counterpart in TFLite; a subtraction, a product, a Gemm and a Softmax have. A
classifier whose label is used stays as it is. Trees and text stay as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

DOMAIN: Final = "ai.onnx.ml"
_TINY: Final = 1e-30  # a norm of zero: a row of zeros stays one
_AFTER: Final = {"NONE": "", "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}


class _Plain:
    """The nodes and constants that take the place of a node."""

    def __init__(self, graph: Any, stem: str) -> None:
        self.nodes: list[NodeProto] = []
        self._graph, self._stem = graph, stem

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        """Its name in the graph."""
        full = f"{self._stem}.{name}"
        self._graph.initializer.append(numpy_helper.from_array(array, full))
        return full

    def add(self, op: str, inputs: list[str], output: str = "", **given: int) -> str:
        """A node; what it gives."""
        gives = output or f"{self._stem}.{len(self.nodes)}"
        node = helper.make_node(op, inputs, [gives], name=f"{gives}.{op}")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in given.items())
        self.nodes.append(node)
        return gives


def say_plainly(model: ModelProto) -> None:
    """Rewrite in place what can be."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    makers: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        plain = _Plain(graph, node.output[-1])
        rule = _RULES.get(node.op_type) if node.domain == DOMAIN else None
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        done = rule is not None and rule(plain, node, given, used, makers)
        nodes += plain.nodes if done else [node]
        makers |= {name: one.op_type for one in nodes[-1:] for name in one.output}
    graph.ClearField("node")
    graph.node.extend(nodes)


def _scaler(plain: _Plain, node: NodeProto, given: dict[str, Any], *_: object) -> bool:
    """(x - offset) * scale."""
    offset = np.asarray(given.get("offset", [0.0]), np.float32)
    scale = np.asarray(given.get("scale", [1.0]), np.float32)
    shifted = node.input[0]
    if offset.any():
        shifted = plain.add("Sub", [shifted, plain.constant("offset", offset)])
    plain.add("Mul", [shifted, plain.constant("scale", scale)], node.output[0])
    return True


def _classifier(
    plain: _Plain, node: NodeProto, given: dict[str, Any], used: set[str], _: object
) -> bool:
    after = _AFTER.get(given.get("post_transform", b"NONE").decode())
    labels = given.get("classlabels_ints") or given.get("classlabels_strings") or ()
    bias = np.asarray(given.get("intercepts", []), np.float32)
    if after is None or len(bias) != len(labels) or len(bias) < 2 or node.output[0] in used:
        return False
    _linear(plain, node, given, bias, after, node.output[1])
    return True


def _regressor(plain: _Plain, node: NodeProto, given: dict[str, Any], *_: object) -> bool:
    if given.get("post_transform", b"NONE") != b"NONE":
        return False
    bias = np.asarray(given.get("intercepts", [0.0] * given.get("targets", 1)), np.float32)
    _linear(plain, node, given, bias, "", node.output[0])
    return True


def _linear(
    plain: _Plain,
    node: NodeProto,
    given: dict[str, Any],
    bias: NDArray[np.float32],
    after: str,
    output: str,
) -> None:
    """A Gemm and what is laid over it."""
    weights = np.asarray(given["coefficients"], np.float32).reshape(len(bias), -1)
    names = [plain.constant("weight", weights), plain.constant("bias", bias)]
    inputs = [node.input[0], *names]
    scores = plain.add("Gemm", inputs, "" if after else output, transB=1)
    if after:
        plain.add(after, [scores], output, **({"axis": -1} if after == "Softmax" else {}))


def _normalizer(
    plain: _Plain, node: NodeProto, given: dict[str, Any], _: set[str], makers: dict[str, str]
) -> bool:
    source, output = node.input[0], node.output[0]
    norm = given.get("norm", b"MAX")
    maker = makers.get(source, "")
    if norm == b"L1" and maker == "Softmax":  # it sums to one
        plain.add("Identity", [source], output)
        return True
    if norm not in (b"L1", b"L2"):
        return False
    if norm == b"L2":
        size = plain.add("Mul", [source, source])
    else:
        size = source if maker == "Sigmoid" else plain.add("Abs", [source])
    axes = plain.constant("axes", np.asarray([1], np.int64))
    size = plain.add("ReduceSum", [size, axes], keepdims=1)
    if norm == b"L2":
        size = plain.add("Sqrt", [size])
    least = plain.constant("least", np.asarray(_TINY, np.float32))
    plain.add("Div", [source, plain.add("Max", [size, least])], output)
    return True


_RULES: Final[dict[str, Callable[..., bool]]] = {
    "Scaler": _scaler,
    "LinearClassifier": _classifier,
    "LinearRegressor": _regressor,
    "Normalizer": _normalizer,
}
