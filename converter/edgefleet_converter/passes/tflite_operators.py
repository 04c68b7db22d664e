"""How each plain ONNX operator is said in TFLite; those of images are in `tflite_images`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto, numpy_helper

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.tflite_translation import (
    Array,
    Given,
    Op,
    Translation,
)


def _gemm(to: Translation, node: NodeProto, given: Given) -> None:
    weights = to.constant(node.input[1]).astype(np.float64)
    if given.get("transA") or weights.ndim != 2:
        raise OperatorError("only x @ W + b with constant W of two dimensions is written")
    if not given.get("transB"):
        weights = weights.T
    weights = weights * given.get("alpha", 1.0)
    bias = np.zeros(weights.shape[0])
    if len(node.input) > 2 and node.input[2]:
        added = to.constant(node.input[2]).astype(np.float64) * given.get("beta", 1.0)
        if added.size not in (1, bias.size):
            raise OperatorError(f"a bias of shape {list(added.shape)} differs between examples")
        bias = bias + added.reshape(-1)
    _fully_connected(to, node, weights, bias)


def _matmul(to: Translation, node: NodeProto, _: Given) -> None:
    weights = to.constant(node.input[1]).astype(np.float64)
    if weights.ndim != 2:
        raise OperatorError("only x @ W with constant W of two dimensions is written")
    _fully_connected(to, node, weights.T, np.zeros(weights.shape[1]))


def _fully_connected(to: Translation, node: NodeProto, weights: Array, bias: Array) -> None:
    source = to.get(node.input[0])
    activation, name = to.activation(node)
    options = schema.FullyConnectedOptionsT(
        fusedActivationFunction=activation,
        keepNumDims=len(to.shape(node.input[0])) > 2,
    )
    inputs = [
        source,
        to.file.constant(f"{name}.weight", weights.astype(np.float32)),
        to.file.constant(f"{name}.bias", bias.astype(np.float32)),
    ]
    to.emit(Op.FULLY_CONNECTED, inputs, name, options)


_BINARY: Final = {
    "Add": (Op.ADD, schema.AddOptionsT, np.add),
    "Sub": (Op.SUB, schema.SubOptionsT, np.subtract),
    "Mul": (Op.MUL, schema.MulOptionsT, np.multiply),
    "Div": (Op.DIV, schema.DivOptionsT, np.divide),
}


def _binary(to: Translation, node: NodeProto, _: Given) -> None:
    kind, (left, right) = node.op_type, node.input
    if left in to.constants and right in to.constants:
        to.constants[node.output[0]] = _BINARY[kind][2](to.constants[left], to.constants[right])
        return
    if kind == "Div" and right in to.constants:
        # TFLite has no int8 division; a product with the reciprocal it has.
        kind, right = "Mul", _reciprocal(to, right)
    code, options, _fold = _BINARY[kind]
    last = _stays_last(to, left, right)
    inputs = [_operand(to, name, node.output[0], last=last) for name in (left, right)]
    activation, name = to.activation(node)
    to.emit(code, inputs, name, options(fusedActivationFunction=activation), last=last)


def _reciprocal(to: Translation, name: str) -> str:
    values = to.constants[name].astype(np.float64)
    if not values.all():
        raise OperatorError(f"{name!r} holds zeros to divide by")
    to.constants[f"{name}.reciprocal"] = (1.0 / values).astype(np.float32)
    return f"{name}.reciprocal"


def _stays_last(to: Translation, *names: str) -> bool:
    """Whether an elementwise operator can work on the NHWC forms that exist."""
    computed = [name for name in names if name not in to.constants]
    return all(name in to.channels_last for name in computed)


def _operand(to: Translation, name: str, result: str, *, last: bool) -> int:
    if name not in to.constants:
        return to.get_channels_last(name) if last else to.get(name)
    array = to.constants[name].astype(np.float32)
    if array.size == 1:
        array = array.reshape(())
    elif last:
        array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(0, 2, 3, 1)
    elif array.ndim == 2 and array.shape[0] == 1:
        array = array.reshape(-1)
    return to.file.constant(f"{result}.{name}", array)


def _softmax(to: Translation, node: NodeProto, given: Given) -> None:
    source, name = node.input[0], node.output[0]
    rank = len(to.shape(source))
    axis = given.get("axis", -1) % rank
    is_channels = rank == 4 and axis == 1
    if axis != rank - 1 and not is_channels:
        raise OperatorError("only over the last axis, or the channels of images")
    index = to.get_channels_last(source) if is_channels else to.get(source)
    to.emit(Op.SOFTMAX, [index], name, schema.SoftmaxOptionsT(beta=1.0), last=is_channels)


def _concat(to: Translation, node: NodeProto, given: Given) -> None:
    if any(name in to.constants for name in node.input):
        raise OperatorError("only what is computed is joined, no constants")
    rank = len(to.shape(node.output[0]))
    axis = given["axis"] % rank
    if axis == 0:
        raise OperatorError("it joins along the batch")
    last = rank == 4 and all(name in to.channels_last for name in node.input)
    get = to.get_channels_last if last else to.get
    # NCHW to NHWC: where each axis goes.
    options = schema.ConcatenationOptionsT(axis=(0, 3, 1, 2)[axis] if last else axis)
    inputs = [get(name) for name in node.input]
    to.emit(Op.CONCATENATION, inputs, node.output[0], options, last=last)


def _reshape(to: Translation, node: NodeProto, _: Given) -> None:
    source, name = node.input[0], node.output[0]
    before, after = to.shape(source), list(to.shape(name))
    varies = before[:1] == (-1,) or after[:1] == [-1]
    if varies and math.prod(before[1:]) != math.prod(after[1:]):
        raise OperatorError("it mixes the batch with other dimensions")
    wanted = to.file.constant(f"{name}.shape", np.asarray(after, np.int32))
    to.emit(Op.RESHAPE, [to.get(source), wanted], name, schema.ReshapeOptionsT(newShape=after))


def _identity(to: Translation, node: NodeProto, _: Given) -> None:
    to.alias(node.output[0], node.input[0])


def _cast(to: Translation, node: NodeProto, given: Given) -> None:
    if given["to"] != 1:
        raise OperatorError("only a cast of float32 to float32 is written")
    to.alias(node.output[0], node.input[0])


def _constant(to: Translation, node: NodeProto, given: Given) -> None:
    value = next(iter(given.values()))
    array = numpy_helper.to_array(value) if hasattr(value, "data_type") else np.asarray(value)
    to.constants[node.output[0]] = array


def _normalization(to: Translation, node: NodeProto, given: Given) -> None:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, as one product and one sum."""
    scale, bias, mean, variance = (to.constant(n).astype(np.float64) for n in node.input[1:5])
    factor = scale / np.sqrt(variance + given.get("epsilon", 1e-5))
    added = bias - mean * factor
    source, name = node.input[0], node.output[0]
    shape = to.shape(source)
    last = source in to.channels_last
    index = to.channels_last[source] if last else to.get(source)
    fit = (-1,) if last or len(shape) == 2 else (-1, *(1,) * (len(shape) - 2))
    constants = [
        to.file.constant(f"{name}.{word}", array.reshape(fit).astype(np.float32))
        for word, array in (("factor", factor), ("added", added))
    ]
    scaled = to.file.tensor(f"{name}.scaled", to.file.shape(index))
    to.file.operator(Op.MUL, [index, constants[0]], [scaled], schema.MulOptionsT())
    activation, name = to.activation(node)
    options = schema.AddOptionsT(fusedActivationFunction=activation)
    to.emit(Op.ADD, [scaled, constants[1]], name, options, last=last)


def _scaler(to: Translation, node: NodeProto, given: Given) -> None:
    """(x - offset) * scale, ai.onnx.ml 1."""
    name = node.output[0]
    shape = to.shape(node.input[0])
    offset = np.asarray(given.get("offset", [0.0]), np.float32)
    scale = np.asarray(given.get("scale", [1.0]), np.float32)
    shifted = to.file.tensor(f"{name}.shifted", shape)
    to.file.operator(
        Op.SUB,
        [to.get(node.input[0]), to.file.constant(f"{name}.offset", offset)],
        [shifted],
        schema.SubOptionsT(),
    )
    to.emit(Op.MUL, [shifted, to.file.constant(f"{name}.scale", scale)], name, schema.MulOptionsT())


HANDLERS: Final[dict[str, Callable[[Translation, NodeProto, Given], None]]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Softmax": _softmax,
    "Concat": _concat,
    "BatchNormalization": _normalization,
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Identity", "Dropout"), _identity),
    "Cast": _cast,
    "Constant": _constant,
    "Scaler": _scaler,
}
