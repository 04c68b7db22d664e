"""Since which version an operator of TFLite knows the types that it is given.

A runtime looks a kernel up by operator and version, so a version that is too low makes an older one
run a kernel that does not know the types. The numbers are TensorFlow's
(tensorflow/lite/tools/versioning/op_version.cc) for the operators that we write and quantize. Where
its rules leave a case at 1 that its own converter writes higher (int16 activations over int8
weights), the higher number stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ai_edge_litert import schema_py_generated as schema

Op = schema.BuiltinOperator
_FLOAT: Final = schema.TensorType.FLOAT32
_HALF: Final = schema.TensorType.FLOAT16
_INT4: Final = schema.TensorType.INT4
_INT8: Final = schema.TensorType.INT8
_INT16: Final = schema.TensorType.INT16
_INT32: Final = schema.TensorType.INT32

NAMES: Final = {code: name for name, code in vars(Op).items() if isinstance(code, int)}
_READS_NO_VALUES: Final = frozenset({Op.SHAPE})
"""1 whatever the quantizer makes of the tensors that go in."""
_ALWAYS_ONE: Final = frozenset({Op.RESHAPE, Op.HARD_SWISH})
_ONE_TWO_THREE: Final = frozenset(
    {
        *(Op.RELU, Op.RELU6, Op.LOGISTIC, Op.TANH, Op.SOFTMAX, Op.MEAN, Op.CONCATENATION),
        *(Op.MAX_POOL_2D, Op.AVERAGE_POOL_2D, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.BATCH_MATMUL),
    }
)
"""float32, int8 and int16 begin with these."""

_BY_TYPE: Final[dict[int, dict[int, int]]] = {
    **{code: {_FLOAT: 1, _INT8: 2, _INT16: 3} for code in _ONE_TWO_THREE},
    Op.ADD: {_FLOAT: 1, _INT8: 2, _INT16: 3},
    Op.SUB: {_FLOAT: 1, _INT8: 2, _INT16: 5},
    Op.MAXIMUM: {_FLOAT: 1, _INT8: 2, _INT16: 4},
    Op.MINIMUM: {_FLOAT: 1, _INT8: 2, _INT16: 4},
    Op.LEAKY_RELU: {_FLOAT: 1, _INT8: 1, _INT16: 2},
    Op.PACK: {_FLOAT: 1, _INT32: 1, _INT8: 2, _INT16: 3},
    Op.SUM: {_FLOAT: 1, _INT8: 2},
    Op.GELU: {_FLOAT: 1, _INT8: 2},
    **{code: {_FLOAT: 1} for code in (Op.ABS, Op.DIV, Op.ELU, Op.EXP, Op.NEG, Op.PRELU, Op.SQRT)},
}


def version_of(code: int, operator: Any, tensors: list[Any]) -> int | None:
    """The version of an operator, by the types of its tensors; None where it is not known here."""
    if code in _READS_NO_VALUES:
        return 1
    special = _SPECIAL.get(code)
    if special is not None:
        return special(operator, tensors)
    kind = tensors[operator.inputs[0]].type
    if code == Op.SHAPE:
        return 1  # whatever the type of what is measured
    if code in _ALWAYS_ONE:
        return 1 if kind in (_FLOAT, _INT8, _INT16) else None
    return _BY_TYPE.get(code, {}).get(kind)


def _types(operator: Any, tensors: list[Any]) -> tuple[int, int]:
    """Of what goes in, and of the weights."""
    return tensors[operator.inputs[0]].type, tensors[operator.inputs[1]].type


def _is_by_channel(tensor: Any) -> bool:
    quantization = tensor.quantization
    return (
        quantization is not None and quantization.scale is not None and len(quantization.scale) > 1
    )


def _rank(index: int, tensors: list[Any]) -> int:
    shape = tensors[index].shape
    return 0 if shape is None else len(shape)


def _conv(operator: Any, tensors: list[Any]) -> int | None:
    takes, weights = _types(operator, tensors)
    data, kernel = (tensors[index] for index in operator.inputs[:2])
    if (takes, weights) == (_FLOAT, _FLOAT):
        return 6 if data.shape[3] != kernel.shape[3] else 1
    if (takes, weights) == (_FLOAT, _INT8):
        return 5 if _is_by_channel(kernel) else 2
    known = {(_INT8, _INT8): 3, (_INT8, _INT4): 7, (_INT16, _INT8): 4}
    found = known.get((takes, weights))
    return found if found is None or data.shape[3] == kernel.shape[3] else max(found, 6)


def _depthwise(operator: Any, tensors: list[Any]) -> int | None:
    takes, weights = _types(operator, tensors)
    if (takes, weights) == (_FLOAT, _FLOAT):
        options = operator.builtinOptions
        return 2 if {options.dilationHFactor, options.dilationWFactor} - {1} else 1
    if (takes, weights) == (_FLOAT, _INT8):
        return 6 if _is_by_channel(tensors[operator.inputs[1]]) else 4
    return {(_INT8, _INT8): 3, (_INT8, _INT4): 7, (_INT16, _INT8): 5}.get((takes, weights))


def _fully_connected(operator: Any, tensors: list[Any]) -> int | None:
    takes, weights = _types(operator, tensors)
    options = operator.builtinOptions
    if (takes, weights) == (_FLOAT, _INT8):
        if _is_by_channel(tensors[operator.inputs[1]]):
            return 12
        return 9 if options is not None and options.asymmetricQuantizeInputs else 3
    known = {(_FLOAT, _FLOAT): 1, (_INT8, _INT8): 4, (_INT8, _INT4): 10, (_INT16, _INT8): 7}
    found = known.get((takes, weights))
    if found is None:
        return None
    if len(operator.inputs) == 2 or operator.inputs[2] == -1:
        return max(found, 6)
    return max(found, 5) if options is not None and options.keepNumDims else found


def _mul(operator: Any, tensors: list[Any]) -> int | None:
    """An int8 product whose rescale is 1 or more needs version 3."""
    kind = tensors[operator.inputs[0]].type
    if kind != _INT8:
        return {_FLOAT: 1, _INT16: 4}.get(kind)
    left, right = (float(tensors[index].quantization.scale[0]) for index in operator.inputs)
    out = float(tensors[operator.outputs[0]].quantization.scale[0])
    return 3 if left * right / out >= 1.0 else 2


def _dequantize(operator: Any, tensors: list[Any]) -> int | None:
    tensor = tensors[operator.inputs[0]]
    if tensor.type == _INT8:
        return 5 if _is_by_channel(tensor) else 2
    return {_HALF: 3, _INT16: 3, _INT4: 6}.get(tensor.type)


def _quantize(operator: Any, tensors: list[Any]) -> int | None:
    made = tensors[operator.outputs[0]]
    if _is_by_channel(made):
        return 3
    return {_INT8: 1, _INT16: 2}.get(made.type)


def _transpose(operator: Any, tensors: list[Any]) -> int | None:
    rank, kind = _rank(operator.inputs[0], tensors), tensors[operator.inputs[0]].type
    if rank > 4:
        return 6 if rank > 5 else 5 if kind == _INT16 else 4
    return {_FLOAT: 1, _INT8: 2, _INT16: 5}.get(kind)


def _pad(operator: Any, tensors: list[Any]) -> int | None:
    if _rank(operator.inputs[0], tensors) > 4:
        return 4
    return {_FLOAT: 1, _INT8: 2, _INT16: 3}.get(tensors[operator.inputs[0]].type)


def _slice(operator: Any, tensors: list[Any]) -> int | None:
    kind, options = tensors[operator.inputs[0]].type, operator.builtinOptions
    if kind not in (_FLOAT, _INT8, _INT16, _INT32):
        return None
    if options is not None and options.offset:
        return 8
    if options is not None and (options.ellipsisMask or options.newAxisMask):
        return 6
    if _rank(operator.inputs[0], tensors) > 4:
        return 4
    return {_FLOAT: 1, _INT32: 1, _INT8: 2, _INT16: 4}[kind]


def _resize(operator: Any, tensors: list[Any]) -> int | None:
    kind, options = tensors[operator.inputs[0]].type, operator.builtinOptions
    if kind == _INT16:
        return 4
    if options.halfPixelCenters or options.alignCorners:
        return 3 if kind in (_FLOAT, _INT8) else None
    return {_FLOAT: 1, _INT8: 2}.get(kind)


_SPECIAL: Final[dict[int, Callable[[Any, list[Any]], int | None]]] = {
    Op.CONV_2D: _conv,
    Op.DEPTHWISE_CONV_2D: _depthwise,
    Op.FULLY_CONNECTED: _fully_connected,
    Op.MUL: _mul,
    Op.DEQUANTIZE: _dequantize,
    Op.QUANTIZE: _quantize,
    Op.TRANSPOSE: _transpose,
    Op.PAD: _pad,
    Op.PADV2: _pad,
    Op.STRIDED_SLICE: _slice,
    Op.RESIZE_BILINEAR: _resize,
    Op.RESIZE_NEAREST_NEIGHBOR: _resize,
}
