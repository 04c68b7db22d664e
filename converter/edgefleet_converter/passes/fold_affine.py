"""Fold per-feature scaling into the linear layer after it, and a bias into the layer before it.

    x * s, x / s, x + t, x - t, then x @ W + b   becomes   x @ (s W) + (t W + b)

Fewer nodes, and one rounding less once the model is int8. The arithmetic is done in float64 and
rounded once. Only constants with one value, or one a feature, are folded; the rest stays as it is.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

Floats = NDArray[np.float64]
_AFFINE = ("Mul", "Div", "Add", "Sub")


def fold_affine(model: ModelProto) -> None:
    """Fold in place, until nothing is left to fold."""
    while _fold_bias(model) or _fold_scale(model):
        pass


def _constants(model: ModelProto) -> dict[str, Floats]:
    return {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in model.graph.initializer
        if tensor.data_type == 1
    }


def _uses(model: ModelProto) -> Counter[str]:
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    return uses


def _fold_bias(model: ModelProto) -> bool:
    """MatMul(x, W) + b -> Gemm(x, W, b), for x of two dimensions."""
    constants, uses = _constants(model), _uses(model)
    makers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        for left, right in ((0, 1), (1, 0)):
            matmul = makers.get(node.input[left])
            bias = constants.get(node.input[right])
            if matmul is None or bias is None or uses[matmul.output[0]] != 1:
                continue
            weights = constants.get(matmul.input[1]) if matmul.op_type == "MatMul" else None
            if weights is None or weights.ndim != 2 or _rank(model, matmul.input[0]) != 2:
                continue
            vector = _vector(bias, weights.shape[1])
            if vector is None:
                continue
            _replace(model, matmul, node, matmul.input[0], weights, vector)
            return True
    return False


def _fold_scale(model: ModelProto) -> bool:
    """An affine node with a constant before a Gemm or MatMul with constant weights."""
    constants, uses = _constants(model), _uses(model)
    makers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        linear = _linear(node, constants)
        affine = makers.get(node.input[0]) if linear else None
        if linear is None or affine is None or affine.op_type not in _AFFINE:
            continue
        if uses[affine.output[0]] != 1 or _rank(model, affine.input[0]) != 2:
            continue
        weights, bias = linear
        constant = constants.get(affine.input[1])
        vector = None if constant is None else _vector(constant, weights.shape[0])
        if vector is None:
            continue
        if affine.op_type in ("Mul", "Div"):
            if affine.op_type == "Div" and not vector.all():
                continue
            scale = vector if affine.op_type == "Mul" else 1.0 / vector
            weights = weights * scale[:, None]
        else:
            bias = bias + (vector if affine.op_type == "Add" else -vector) @ weights
        _replace(model, affine, node, affine.input[0], weights, bias)
        return True
    return False


def _linear(node: NodeProto, constants: dict[str, Floats]) -> tuple[Floats, Floats] | None:
    """Weights [in, out] and bias [out] of a node, with its attributes applied."""
    if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in constants:
        return None
    weights = constants[node.input[1]]
    if weights.ndim != 2:
        return None
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if given.get("transA"):
        return None
    if given.get("transB"):
        weights = weights.T
    weights = weights * float(given.get("alpha", 1.0))
    bias: Floats | None = np.zeros(weights.shape[1])
    if len(node.input) > 2 and node.input[2]:
        constant = constants.get(node.input[2])
        bias = None if constant is None else _vector(constant, weights.shape[1])
    return None if bias is None else (weights, bias * float(given.get("beta", 1.0)))


def _vector(constant: Floats, size: int) -> Floats | None:
    """The constant as one value a feature, if that is what it broadcasts to along the last axis."""
    if constant.size == 1:
        return np.full(size, constant.reshape(-1)[0])
    if constant.size == size and constant.ndim > 0 and constant.shape[-1] == size:
        return constant.reshape(-1)
    return None


def _rank(model: ModelProto, name: str) -> int:
    """The rank of a tensor as the graph says, or -1."""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        if value.name == name and value.type.tensor_type.HasField("shape"):
            return len(value.type.tensor_type.shape.dim)
    makers = {out: node for node in model.graph.node for out in node.output}
    maker = makers.get(name)
    if maker is not None and maker.op_type == "Gemm":
        return 2
    passing = ("Relu", "Sigmoid", "Tanh", "Softmax", *_AFFINE)
    return _rank(model, maker.input[0]) if maker is not None and maker.op_type in passing else -1


def _replace(
    model: ModelProto, first: NodeProto, last: NodeProto, source: str, weights: Floats, bias: Floats
) -> None:
    """Put one Gemm where `last` stands and take `first` away; unused constants go too."""
    output = last.output[0]
    names = [f"{output}.weight", f"{output}.bias"]
    arrays = [weights.astype(np.float32), bias.astype(np.float32)]
    gemm = helper.make_node("Gemm", [source, *names], [output], name=f"{output}.gemm")
    nodes = [gemm if node is last else node for node in model.graph.node if node is not first]
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    kept += [
        numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)
    ]
    used = {name for node in nodes for name in node.input}
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(tensor for tensor in kept if tensor.name in used)
