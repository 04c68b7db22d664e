"""Operators that move, cut, fill and shrink tensors, in TFLite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.tflite_translation import Given, Op, Translation

_REDUCERS: Final = {
    "ReduceMean": Op.MEAN,
    "ReduceSum": Op.SUM,
    "ReduceMax": Op.REDUCE_MAX,
    "ReduceMin": Op.REDUCE_MIN,
    "GlobalAveragePool": Op.MEAN,
    "GlobalMaxPool": Op.REDUCE_MAX,
}
_WHOLE_IMAGE: Final = [2, 3]


def _reduce(to: Translation, node: NodeProto, given: Given) -> None:
    source, name = node.input[0], node.output[0]
    rank = len(to.shape(source))
    axes, keep = given.get("axes"), bool(given.get("keepdims", 1))
    if node.op_type.startswith("Global"):
        axes, keep = list(range(2, rank)), True
    elif axes is None and len(node.input) > 1 and node.input[1]:
        axes = to.constant(node.input[1]).tolist()
    if not axes or 0 in (axes := sorted(axis % rank for axis in axes)):
        raise OperatorError(f"over axes {axes}: the batch is not reduced")
    is_image = rank == 4 and axes == _WHOLE_IMAGE
    index = to.get_channels_last(source) if is_image else to.get(source)
    table = to.file.constant(f"{name}.axes", np.asarray([1, 2] if is_image else axes, np.int32))
    options = schema.ReducerOptionsT(keepDims=keep)
    code = _REDUCERS[node.op_type]
    to.emit(code, [index, table], name, options, last=is_image and keep)


def _transpose(to: Translation, node: NodeProto, given: Given) -> None:
    source, name = node.input[0], node.output[0]
    if source in to.constants:
        to.constants[name] = to.constants[source].transpose(given.get("perm"))
        return
    order = given.get("perm") or list(range(len(to.shape(source))))[::-1]
    table = to.file.constant(f"{name}.order", np.asarray(order, np.int32))
    to.emit(Op.TRANSPOSE, [to.get(source), table], name, schema.TransposeOptionsT())


def _pad(to: Translation, node: NodeProto, given: Given) -> None:
    if given.get("mode", "constant") != "constant":
        raise OperatorError(f"mode {given['mode']}; constant is written")
    source, name = node.input[0], node.output[0]
    rank = len(to.shape(source))
    amounts = to.constant(node.input[1]).tolist()
    axes = list(range(rank))
    if len(node.input) > 3 and node.input[3]:
        axes = [axis % rank for axis in to.constant(node.input[3]).tolist()]
    table = np.zeros((rank, 2), np.int32)
    for place, axis in enumerate(axes):
        table[axis] = amounts[place], amounts[place + len(axes)]
    if (table < 0).any():
        raise OperatorError("a negative amount")
    last = source in to.channels_last
    if last:
        table = table[[0, 2, 3, 1]]
    index = to.channels_last[source] if last else to.get(source)
    inputs = [index, to.file.constant(f"{name}.amounts", table)]
    value = 0.0
    if len(node.input) > 2 and node.input[2]:
        value = float(to.constant(node.input[2]).reshape(-1)[0])
    if value == 0.0:
        to.emit(Op.PAD, inputs, name, schema.PadOptionsT(), last=last)
        return
    inputs.append(to.file.constant(f"{name}.value", np.asarray(value, np.float32)))
    to.emit(Op.PADV2, inputs, name, schema.PadV2OptionsT(), last=last)


def _slice(to: Translation, node: NodeProto, _: Given) -> None:
    source, name = node.input[0], node.output[0]
    shape = to.shape(source)
    starts, ends = (to.constant(one).tolist() for one in node.input[1:3])
    more = [to.constant(one).tolist() if one else None for one in node.input[3:5]]
    axes, steps = (*more, None, None)[:2]
    for place, axis in enumerate(axes or range(len(starts))):
        if steps is not None and steps[place] < 1:
            raise OperatorError("only steps forward are written")
        if axis % len(shape) == 0 and (starts[place], ends[place] >= 2**31 - 1) != (0, True):
            raise OperatorError("it cuts the batch")
    _cut(to, source, name, starts, ends, axes or range(len(starts)), steps)


def _split(to: Translation, node: NodeProto, given: Given) -> None:
    source = node.input[0]
    shape = to.shape(source)
    axis = given.get("axis", 0) % len(shape)
    if axis == 0:
        raise OperatorError("it cuts the batch")
    start = 0
    for name in node.output:
        end = start + to.shape(name)[axis]
        _cut(to, source, name, [start], [end], [axis], None)
        start = end


def _cut(
    to: Translation, source: str, name: str, starts: Any, ends: Any, axes: Any, steps: Any
) -> None:
    """A STRIDED_SLICE; axes that are not cut stay whole by their masks."""
    shape = to.shape(source)
    rank = len(shape)
    begin, end, stride = np.zeros(rank, np.int32), np.zeros(rank, np.int32), np.ones(rank, np.int32)
    whole = (1 << rank) - 1
    for place, axis in enumerate(axes):
        at = axis % rank
        if at == 0:
            continue
        size = shape[at]
        bounds = [max(0, min(size, v + size if v < 0 else v)) for v in (starts[place], ends[place])]
        begin[at], end[at] = bounds
        stride[at] = 1 if steps is None else steps[place]
        whole &= ~(1 << at)
    tables = [
        to.file.constant(f"{name}.{word}", array)
        for word, array in (("begin", begin), ("end", end), ("stride", stride))
    ]
    options = schema.StridedSliceOptionsT(beginMask=whole, endMask=whole)
    to.emit(Op.STRIDED_SLICE, [to.get(source), *tables], name, options)


def _resize(to: Translation, node: NodeProto, given: Given) -> None:
    source, name = node.input[0], node.output[0]
    before, after = to.shape(source), to.shape(name)
    if len(before) != 4 or before[1] != after[1]:
        raise OperatorError("only height and width of images are written")
    if len(node.input) > 2 and node.input[2]:
        scales = to.constant(node.input[2]).astype(np.float64)
        if not np.array_equal(np.asarray(before[1:]) * scales[1:], after[1:]):
            raise OperatorError(f"scales {scales.tolist()} of sizes {list(before[1:])}")
    mode = given.get("mode", "nearest")
    where = given.get("coordinate_transformation_mode", "half_pixel")
    if where == "pytorch_half_pixel" and min(after[2:]) > 1:
        where = "half_pixel"
    words = {"halfPixelCenters": where == "half_pixel", "alignCorners": where == "align_corners"}
    rounding = given.get("nearest_mode", "round_prefer_floor")
    is_whole = all(b % a == 0 for a, b in zip(before[2:], after[2:], strict=True))
    plain = where == "asymmetric" and rounding == "floor"
    if mode == "nearest" and (plain or (where == "half_pixel" and is_whole)):
        code, options = Op.RESIZE_NEAREST_NEIGHBOR, schema.ResizeNearestNeighborOptionsT(**words)
    elif mode == "linear" and where in ("half_pixel", "align_corners", "asymmetric"):
        code, options = Op.RESIZE_BILINEAR, schema.ResizeBilinearOptionsT(**words)
    else:
        raise OperatorError(f"{mode} by {where}, {rounding}")
    if given.get("antialias") or math.prod(after[2:]) < 1:
        raise OperatorError("antialias")
    size = to.file.constant(f"{name}.size", np.asarray(after[2:], np.int32))
    to.emit(code, [to.get_channels_last(source), size], name, options, last=True)


HANDLERS: Final[dict[str, Callable[[Translation, NodeProto, Given], None]]] = {
    **dict.fromkeys(_REDUCERS, _reduce),
    "Transpose": _transpose,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Resize": _resize,
}
