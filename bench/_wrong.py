"""Devices that compute something else than the desk: bits that fell over, wrong kernels, and inputs
that were prepared in another way. Each is a model file, or what comes of an input."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgefleet_contract.bundle import Format
from edgefleet_converter.arrays import Array

Spoilt = tuple[str, bytes]
"""What was done, and the file."""

_SMALLEST = 64  # bytes of a buffer that counts as weights


def flipped(kind: Format, raw: bytes, count: int) -> Iterator[Spoilt]:
    """Files with one bit of a weight the other way round."""
    rng = np.random.default_rng(1)
    spans = list(_weights(kind, raw))
    sizes = np.asarray([end - start for start, end in spans], np.float64)
    for _ in range(count):
        start, end = spans[int(rng.choice(len(spans), p=sizes / sizes.sum()))]
        at, bit = int(rng.integers(start, end)), int(rng.integers(8))
        spoilt = bytearray(raw)
        spoilt[at] ^= 1 << bit
        yield f"bit {bit}", bytes(spoilt)


def _weights(kind: Format, raw: bytes) -> Iterator[tuple[int, int]]:
    """Where weights lie in a file."""
    if kind is Format.TFLITE:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.Model.GetRootAs(raw, 0)
        buffers = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength())]
        blobs = [b.tobytes() for b in buffers if not isinstance(b, int)]
    else:
        made = onnx.load_model_from_string(raw)
        blobs = [t.raw_data for t in made.graph.initializer]
    for blob in blobs:
        if len(blob) >= _SMALLEST:
            start = raw.index(blob)
            yield start, start + len(blob)


def kernels(raw: bytes) -> Iterator[Spoilt]:
    """ONNX files in which one node gives something else: what wrong kernels do, one at a time."""
    for index, what in enumerate(_floats(onnx.load_model_from_string(raw))):
        for name, tail in _TAILS.items():
            made = onnx.load_model_from_string(raw)
            tail(made.graph, what, f"spoilt{index}")
            yield f"{name} behind {what}", made.SerializeToString()


def _floats(model: onnx.ModelProto) -> list[str]:
    """Tensors of float32 that operators give, the last ones of the graph among them."""
    told = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*told.value_info, *told.output)}
    return [
        name
        for node in model.graph.node
        for name in node.output
        if kinds.get(name) == TensorProto.FLOAT
    ]


def _behind(graph: onnx.GraphProto, what: str, name: str) -> str:
    """The tensor gets another name; what read it reads what will be called as it was."""
    for node in graph.node:
        node.output[:] = [f"{what}.{name}" if one == what else one for one in node.output]
    return f"{what}.{name}"


def _put(
    graph: onnx.GraphProto, what: str, name: str, op: str, *constants: np.ndarray, **given: object
) -> None:
    source = _behind(graph, what, name)
    inputs = [source]
    for i, constant in enumerate(constants):
        inputs.append(f"{name}.{i}")
        graph.initializer.append(numpy_helper.from_array(constant, inputs[-1]))
    graph.node.append(helper.make_node(op, inputs, [what], name=name, **given))
    _sort(graph)


def _sort(graph: onnx.GraphProto) -> None:
    """The node that was added goes where its input is there."""
    added = graph.node[-1]
    nodes = list(graph.node[:-1])
    place = next(i for i, node in enumerate(nodes) if added.input[0] in node.output)
    del graph.node[:]
    graph.node.extend([*nodes[: place + 1], added, *nodes[place + 1 :]])


def _f(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


_TAILS: dict[str, Callable[[onnx.GraphProto, str, str], None]] = {
    "2 % more": lambda g, w, n: _put(g, w, n, "Mul", _f(1.02)),
    "10 % less": lambda g, w, n: _put(g, w, n, "Mul", _f(0.9)),
    "cut off at 1": lambda g, w, n: _put(g, w, n, "Clip", _f(-1e30), _f(1.0)),
    "no negatives": lambda g, w, n: _put(g, w, n, "Relu"),
    "leaky": lambda g, w, n: _put(g, w, n, "LeakyRelu", alpha=0.05),
    "whole numbers": lambda g, w, n: _put(g, w, n, "Floor"),
}


def prepared(x: Array) -> Iterator[tuple[str, Array]]:
    """Inputs that somebody prepared otherwise: by another scale, order, rounding, place."""
    low, high = float(x.min()), float(x.max())
    span = max(high - low, 1e-9)
    yield "scaled by 255/256", (x * np.float32(255 / 256)).astype(x.dtype)
    yield "to -1 … 1", ((x - low) / span * 2 - 1).astype(x.dtype)
    yield "shifted by a hundredth", (x + np.float32(span / 100)).astype(x.dtype)
    coarse = np.floor((x - low) / span * 15) / 15
    yield "rounded down to 4 bits", (coarse * span + low).astype(x.dtype)
    yield "upside down", x[:, ::-1].copy()
    yield "moved by one", np.roll(x, 1, axis=1)
    if x.ndim == 4:
        plane = (1, 2) if x.shape[1] == x.shape[2] else (2, 3)
        yield "mirrored", np.flip(x, plane[1])
        yield "turned", np.ascontiguousarray(np.swapaxes(x, *plane))
    if x.ndim == 2:
        swapped = x.copy()
        swapped[:, [0, -1]] = swapped[:, [-1, 0]]
        yield "two columns swapped", swapped
