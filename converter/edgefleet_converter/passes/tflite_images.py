"""Convolution and pooling of images in TFLite: NHWC, `SAME` or `VALID`, padding of its own else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.tflite_translation import Given, Op, Translation

_SAME: Final = schema.Padding.SAME
_VALID: Final = schema.Padding.VALID
_WHOLE_IMAGE: Final = ((2, 3), (-2, -1))


def _conv(to: Translation, node: NodeProto, given: Given) -> None:
    weights = to.constant(node.input[1]).astype(np.float32)
    if weights.ndim != 4:
        raise OperatorError("only images are written: weights of four dimensions")
    count, depth, height, width = weights.shape
    groups, channels = given.get("group", 1), to.shape(node.input[0])[1]
    if groups not in (1, channels) or (groups != 1 and depth != 1):
        raise OperatorError(f"{groups} groups; 1, or one a channel, are written")
    strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    reach = [(height - 1) * dilations[0] + 1, (width - 1) * dilations[1] + 1]
    source, padding = _pad(to, node, given, reach, strides, may_write=True)
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
    if groups == 1:
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
    if given.get("ceil_mode") or set(given.get("dilations", [1])) != {1}:
        raise OperatorError("ceil_mode and dilations are not written")
    if len(node.output) > 1:
        raise OperatorError("the indices of a pool are not written")
    is_max = node.op_type == "MaxPool"
    strides = given.get("strides", [1, 1])
    # Zeros belong to an average that counts its padding; to a maximum they do not.
    counts_zeros = not is_max and bool(given.get("count_include_pad"))
    source, padding = _pad(to, node, given, size, strides, may_write=counts_zeros)
    options = schema.Pool2DOptionsT(
        padding=padding,
        strideH=strides[0],
        strideW=strides[1],
        filterHeight=size[0],
        filterWidth=size[1],
    )
    code = Op.MAX_POOL_2D if is_max else Op.AVERAGE_POOL_2D
    to.emit(code, [source], node.output[0], options, last=True)


def _global_average(to: Translation, node: NodeProto, _: Given) -> None:
    _mean(to, node, keep=True)


def _reduce_mean(to: Translation, node: NodeProto, given: Given) -> None:
    axes = given.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = to.constant(node.input[1]).tolist()
    if tuple(axes or ()) not in _WHOLE_IMAGE:
        raise OperatorError(f"the mean over axes {axes}; over height and width is written")
    _mean(to, node, keep=bool(given.get("keepdims", 1)))


def _mean(to: Translation, node: NodeProto, *, keep: bool) -> None:
    name = node.output[0]
    if len(to.shape(node.input[0])) != 4:
        raise OperatorError("only images are written: four dimensions")
    axes = to.file.constant(f"{name}.axes", np.asarray([1, 2], np.int32))
    inputs = [to.get_channels_last(node.input[0]), axes]
    to.emit(Op.MEAN, inputs, name, schema.ReducerOptionsT(keepDims=keep), last=keep)


def _pad(
    to: Translation,
    node: NodeProto,
    given: Given,
    reach: list[int],
    strides: list[int],
    *,
    may_write: bool,
) -> tuple[int, int]:
    """The input as NHWC and the padding word; a PAD of zeros is written where no word fits."""
    name = node.input[0]
    if given.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise OperatorError(f"auto_pad {given['auto_pad']}: export the model with explicit pads")
    source = to.get_channels_last(name)
    pads = given.get("pads", [0, 0, 0, 0])
    if not any(pads):
        return source, _VALID
    sizes = to.shape(name)[2:]
    same = [_same(*item) for item in zip(sizes, reach, strides, strict=True)]
    counts_zeros = node.op_type == "AveragePool" and given.get("count_include_pad")
    if [pads[0], pads[1], pads[2], pads[3]] == [*(s[0] for s in same), *(s[1] for s in same)] and (
        not counts_zeros
    ):
        return source, _SAME
    if not may_write:
        raise OperatorError(f"pads {pads} of a {node.op_type}")
    batch, height, width, channels = to.file.shape(source)
    amounts = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]
    padded = to.file.tensor(
        f"{node.output[0]}.padded",
        (batch, height + pads[0] + pads[2], width + pads[1] + pads[3], channels),
    )
    table = to.file.constant(f"{node.output[0]}.pads", np.asarray(amounts, np.int32))
    to.file.operator(Op.PAD, [source, table], [padded], schema.PadOptionsT())
    return padded, _VALID


def _same(size: int, reach: int, stride: int) -> tuple[int, int]:
    """What `SAME` pads before and after one dimension (tensorflow/lite/kernels/padding.h)."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


HANDLERS: Final[dict[str, Callable[[Translation, NodeProto, Given], None]]] = {
    "Conv": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_average,
    "ReduceMean": _reduce_mean,
}
