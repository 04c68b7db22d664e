"""Convolution and pooling of images in TFLite: NHWC, `SAME` or `VALID`, padding of its own else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import NodeProto

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.tflite_translation import Given, Op, Translation

_SAME: Final = schema.Padding.SAME
_VALID: Final = schema.Padding.VALID
_LOWEST: Final = float(np.finfo(np.float32).min)


def _conv(to: Translation, node: NodeProto, given: Given) -> None:
    weights = to.constant(node.input[1]).astype(np.float32)
    if weights.ndim != 4:
        raise OperatorError("only images are written: weights of four dimensions")
    count, depth, height, width = weights.shape
    groups, channels = given.get("group", 1), to.shape(node.input[0])[1]
    is_depthwise = groups == channels and depth == 1 and groups > 1
    strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    reach = [(height - 1) * dilations[0] + 1, (width - 1) * dilations[1] + 1]
    source, padding = _pad(to, node, given, reach, strides)
    activation, name = to.activation(node)
    bias = np.zeros(count, np.float32)
    if len(node.input) > 2 and node.input[2]:
        bias = to.constant(node.input[2]).astype(np.float32)
    shared = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": activation,
    }
    if not is_depthwise:
        kernel = weights.transpose(0, 2, 3, 1)
        code, options = Op.CONV_2D, schema.Conv2DOptionsT(**shared)
    else:
        kernel = weights.transpose(1, 2, 3, 0)
        multiplier = count // channels
        code = Op.DEPTHWISE_CONV_2D
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=multiplier, **shared)
    inputs = [
        source,
        to.file.constant(f"{name}.weight", kernel),
        to.file.constant(f"{name}.bias", bias),
    ]
    to.emit(code, inputs, name, options, last=True)


def _pool(to: Translation, node: NodeProto, given: Given) -> None:
    size = given["kernel_shape"]
    if len(size) != 2:
        raise OperatorError("only images are written: windows of two dimensions")
    if set(given.get("dilations", [1])) != {1}:
        raise OperatorError("dilations are not written")
    if len(node.output) > 1:
        raise OperatorError("the indices of a pool are not written")
    is_max = node.op_type == "MaxPool"
    strides = given.get("strides", [1, 1])
    fill = _LOWEST if is_max and not to.is_never_negative(node.input[0]) else 0.0
    source, padding = _pad(to, node, given, size, strides, fill=fill)
    options = schema.Pool2DOptionsT(
        padding=padding,
        strideH=strides[0],
        strideW=strides[1],
        filterHeight=size[0],
        filterWidth=size[1],
    )
    name = node.output[0]
    if is_max:
        to.emit(Op.MAX_POOL_2D, [source], name, options, last=True)
        return
    shares = _shares(to, node, given, size, strides)
    if padding == _SAME or (shares == 1.0).all():
        to.emit(Op.AVERAGE_POOL_2D, [source], name, options, last=True)
        return
    batch, channels, height, width = to.shape(name)
    mean = to.file.tensor(f"{name}.mean", (batch, height, width, channels))
    to.file.operator(Op.AVERAGE_POOL_2D, [source], [mean], options)
    factor = to.file.constant(f"{name}.share", shares.astype(np.float32))
    to.emit(Op.MUL, [mean, factor], name, schema.MulOptionsT(), last=True)


def _shares(
    to: Translation, node: NodeProto, given: Given, size: list[int], strides: list[int]
) -> NDArray[np.float64]:
    """By what a mean over whole windows is too small, [1, H, W, 1]: some of them hang over."""
    pads, counts = given.get("pads", [0, 0, 0, 0]), given.get("count_include_pad", 0)
    sizes, results = to.shape(node.input[0])[2:], to.shape(node.output[0])[2:]
    inside = []
    for axis in (0, 1):
        low, high = (0, sizes[axis]) if not counts else (-pads[axis], sizes[axis] + pads[axis + 2])
        begin = np.arange(results[axis]) * strides[axis] - pads[axis]
        inside.append(np.minimum(begin + size[axis], high) - np.maximum(begin, low))
    found: NDArray[np.float64] = (size[0] * size[1]) / np.outer(*inside)
    return found.reshape(1, *results, 1)


def _pad(
    to: Translation,
    node: NodeProto,
    given: Given,
    reach: list[int],
    strides: list[int],
    *,
    fill: float = 0.0,
) -> tuple[int, int]:
    """The input as NHWC and the padding word; a PAD is written where no word fits."""
    name = node.input[0]
    if given.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise OperatorError(f"auto_pad {given['auto_pad']}: export the model with explicit pads")
    source = to.get_channels_last(name)
    pads = list(given.get("pads", [0, 0, 0, 0]))
    sizes, results = to.shape(name)[2:], to.shape(node.output[0])[2:]
    for axis in (0, 1):  # with ceil_mode the last window may hang over
        needs = (results[axis] - 1) * strides[axis] + reach[axis] - sizes[axis] - pads[axis]
        pads[axis + 2] = max(pads[axis + 2], needs)
    if not any(pads):
        return source, _VALID
    same = [_same(*item) for item in zip(sizes, reach, strides, strict=True)]
    counts_zeros = node.op_type == "AveragePool" and given.get("count_include_pad")
    if pads == [*(s[0] for s in same), *(s[1] for s in same)] and not counts_zeros:
        return source, _SAME
    batch, height, width, channels = to.file.shape(source)
    amounts = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]
    padded = to.file.tensor(
        f"{node.output[0]}.padded",
        (batch, height + pads[0] + pads[2], width + pads[1] + pads[3], channels),
    )
    table = to.file.constant(f"{node.output[0]}.pads", np.asarray(amounts, np.int32))
    if fill == 0.0:
        to.file.operator(Op.PAD, [source, table], [padded], schema.PadOptionsT())
    else:
        value = to.file.constant(f"{node.output[0]}.fill", np.asarray(fill, np.float32))
        to.file.operator(Op.PADV2, [source, table, value], [padded], schema.PadV2OptionsT())
    return padded, _VALID


def _same(size: int, reach: int, stride: int) -> tuple[int, int]:
    """What `SAME` pads before and after one dimension (tensorflow/lite/kernels/padding.h)."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


HANDLERS: Final[dict[str, Callable[[Translation, NodeProto, Given], None]]] = {
    "Conv": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
}
