"""Operator versions of a TFLite file, by the types of its tensors.

A runtime looks a kernel up by operator and version, so a version that is too low makes an older one
run a kernel that does not know the types. The numbers are TensorFlow's
(tensorflow/lite/tools/versioning/op_version.cc) for the operators that we write, in float32 and
int8. Two uses of one operator that need different versions get an entry each.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from ai_edge_litert import schema_py_generated as schema

from edgefleet_contract.errors import OperatorError

Op = schema.BuiltinOperator
_INT8: Final = schema.TensorType.INT8
_FLOAT: Final = schema.TensorType.FLOAT32

_ALWAYS_ONE: Final = frozenset({Op.RESHAPE, Op.DIV, Op.QUANTIZE})
_INT8_IS_TWO: Final = frozenset(
    {
        *(Op.ADD, Op.SUB, Op.RELU, Op.RELU6, Op.LOGISTIC, Op.TANH, Op.SOFTMAX),
        *(Op.DEQUANTIZE, Op.MAX_POOL_2D, Op.AVERAGE_POOL_2D, Op.TRANSPOSE, Op.MEAN, Op.PAD),
        *(Op.PADV2, Op.CONCATENATION),
    }
)
_INT8_IS_THREE: Final = frozenset({Op.CONV_2D, Op.DEPTHWISE_CONV_2D})


def stamp(model: Any, *, like: Any) -> None:
    """Stamp versions into a quantized `ModelT`; its border gets the names and shapes of `like`.

    Raises:
        OperatorError: an operator whose versions are not known here.
    """
    graph, codes = model.subgraphs[0], model.operatorCodes
    found: dict[tuple[int, int], int] = {}
    fresh: list[Any] = []
    for operator in graph.operators:
        code = codes[operator.opcodeIndex]
        key = (code.builtinCode, version_of(code.builtinCode, operator, graph.tensors))
        if key not in found:
            found[key] = len(fresh)
            fresh.append(copy.copy(code))
            fresh[-1].version = key[1]
        operator.opcodeIndex = found[key]
    model.operatorCodes = fresh
    origin = like.subgraphs[0]
    for mine, theirs in ((graph.inputs, origin.inputs), (graph.outputs, origin.outputs)):
        for index, old in zip(mine, theirs, strict=True):
            _name(graph, index, origin.tensors[old].name)
            graph.tensors[index].shapeSignature = origin.tensors[old].shapeSignature


def version_of(code: int, operator: Any, tensors: list[Any]) -> int:
    """The version of an operator, by the types of its tensors.

    Raises:
        OperatorError: an operator or a type that is not known here.
    """
    kind = tensors[operator.inputs[0]].type
    if kind not in (_INT8, _FLOAT):
        raise OperatorError(f"operator {code} on tensors of type {kind}: version not known")
    if code in _ALWAYS_ONE:
        return 1
    if code in _INT8_IS_TWO:
        return 2 if kind == _INT8 else 1
    if code in _INT8_IS_THREE:
        return 3 if kind == _INT8 else 1
    if code == Op.FULLY_CONNECTED:
        return _fully_connected(operator, kind)
    if code == Op.MUL:
        return _mul(operator, tensors, kind)
    raise OperatorError(f"operator {code}: version not known")


def _fully_connected(operator: Any, kind: int) -> int:
    if len(operator.inputs) == 2 or operator.inputs[2] == -1:
        return 6
    if operator.builtinOptions is not None and operator.builtinOptions.keepNumDims:
        return 5
    return 4 if kind == _INT8 else 1


def _mul(operator: Any, tensors: list[Any], kind: int) -> int:
    """A product whose rescale is 1 or more needs version 3."""
    if kind != _INT8:
        return 1
    left, right = (float(tensors[index].quantization.scale[0]) for index in operator.inputs)
    out = float(tensors[operator.outputs[0]].quantization.scale[0])
    return 3 if left * right / out >= 1.0 else 2


def _name(graph: Any, index: int, name: bytes) -> None:
    """Name a tensor; another of that name steps aside."""
    for tensor in graph.tensors:
        if tensor.name == name and tensor is not graph.tensors[index]:
            tensor.name = name + b".int8"
    graph.tensors[index].name = name
