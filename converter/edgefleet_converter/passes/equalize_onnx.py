"""Equalization of an ONNX graph: channels of one layer are made smaller, and larger in the next.

    W2 f(W1 x + b1)  =  (W2 S) f(S^-1 W1 x + S^-1 b1)      for f with f(s x) = s f(x), s > 0

The function stays; what changes is how evenly channels fill an 8-bit range that they share. With
the scales of SmoothQuant (Xiao et al., arXiv:2211.10438), s_j = max|x_j|^a / max|w_j|^(1-a), and
between any two linear layers, as in cross-layer equalization (Nagel et al., arXiv:1906.04721).

A producer is a Conv, Gemm, MatMul or normalization with constants of its own; its output may pass
through operators that keep positive scales, and all that use it in the end must be linear layers.
Anything else leaves the producer as it is. The arithmetic is done in float64 and rounded once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Floats = NDArray[np.float64]

LINEAR: Final = ("Conv", "Gemm", "MatMul")
_NORMS: Final = ("LayerNormalization", "BatchNormalization")
_SAME: Final = ("Relu", "LeakyRelu", "Identity", "Dropout")
_POOLS: Final = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_SPREAD: Final = 1e4  # the largest ratio of a scale to the mean of all


@dataclass(frozen=True, slots=True)
class Consumer:
    """A linear layer that is fed by a producer. `axis`: of the channels in what feeds it."""

    node: int
    tensor: str
    axis: int


@dataclass(frozen=True, slots=True)
class Link:
    """A producer, the constant Adds behind it, and all the layers that its output feeds."""

    producer: int
    adds: tuple[int, ...]
    consumers: tuple[Consumer, ...]


class _Graph:
    """A model with its constants at hand, and who uses what."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
            for tensor in model.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
        }
        self.shapes = {
            tensor.name: numpy_helper.to_array(tensor).tolist()
            for tensor in model.graph.initializer
            if tensor.data_type == TensorProto.INT64 and len(tensor.dims) == 1
        }
        self.users: dict[str, list[int]] = {}
        for place, node in enumerate(self.nodes):
            for name in node.input:
                self.users.setdefault(name, []).append(place)
        self.uses = Counter(name for node in self.nodes for name in node.input)
        self.outputs = {value.name for value in model.graph.output}

    def own(self, node: NodeProto, place: int) -> Floats | None:
        """A constant input that no other node uses."""
        name = node.input[place] if place < len(node.input) else ""
        return self.constants.get(name) if self.uses[name] == 1 else None

    def owns(self, node: NodeProto, places: tuple[int, ...]) -> bool:
        """Whether the inputs at these places are absent or constants of its own."""
        given = [p for p in places if p < len(node.input) and node.input[p]]
        return all(self.own(node, place) is not None for place in given)


def find_links(model: ModelProto) -> tuple[Link, ...]:
    """All producers that may be rescaled, in graph order."""
    graph = _Graph(model)
    found = []
    for place, node in enumerate(graph.nodes):
        if not _is_producer(graph, node):
            continue
        is_image = node.op_type in ("Conv", "BatchNormalization")
        adds: list[int] = []
        consumers: list[Consumer] = []
        if _walk(graph, node.output[0], is_image, adds, consumers) and consumers:
            found.append(Link(place, tuple(adds), tuple(consumers)))
    return tuple(found)


def rescale(
    model: ModelProto, links: tuple[Link, ...], peaks: Mapping[str, Floats], alpha: float
) -> int:
    """Rescale in place; how many producers were.

    Args:
        model: the float model.
        links: what `find_links` found in it.
        peaks: for each consumer's tensor, the largest magnitude of each channel.
        alpha: how much of the unevenness moves into weights, 0 to 1.
    """
    graph = _Graph(model)
    done = 0
    for link in links:
        scales = _scales(graph, link, peaks, alpha)
        if scales is None:
            continue
        _divide_producer(graph, graph.nodes[link.producer], scales)
        for place in link.adds:
            _divide_add(graph, graph.nodes[place], scales)
        for consumer in link.consumers:
            _multiply_consumer(graph, graph.nodes[consumer.node], scales)
        done += 1
    for tensor in model.graph.initializer:
        if tensor.name in graph.constants:
            array = graph.constants[tensor.name].astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return done


def _is_producer(graph: _Graph, node: NodeProto) -> bool:
    if node.op_type in LINEAR:
        weights = graph.own(node, 1)
        if weights is None or not graph.owns(node, (2,)):
            return False
        if node.op_type == "Gemm":
            bias = graph.own(node, 2)
            return len(node.input) < 3 or (bias is not None and bias.size == _width(node, weights))
        return node.op_type == "Conv" or weights.ndim == 2
    if node.op_type in _NORMS:
        scale = graph.own(node, 1)
        is_last = node.op_type != "LayerNormalization" or _attribute(node, "axis", -1) == -1
        is_single = len([name for name in node.output if name]) == 1
        return (
            scale is not None
            and scale.ndim == 1
            and graph.owns(node, (2,))
            and (is_last and is_single)
        )
    return False


def _walk(
    graph: _Graph, tensor: str, is_image: bool, adds: list[int], consumers: list[Consumer]
) -> bool:
    """Follow a tensor to the layers that it feeds; False where it goes anywhere else."""
    if tensor in graph.outputs:
        return False
    for place in graph.users.get(tensor, []):
        node = graph.nodes[place]
        if node.op_type in LINEAR:
            if not _may_feed(graph, node, tensor, is_image):
                return False
            consumers.append(Consumer(place, tensor, 1 if is_image else -1))
            continue
        if _is_bias(graph, node, tensor) and not is_image and not adds:
            adds.append(place)
        elif not _keeps_scales(graph, node, tensor, is_image):
            return False
        after = is_image and not _is_flat(graph, node)
        if not _walk(graph, node.output[0], after, adds, consumers):
            return False
    return True


def _may_feed(graph: _Graph, node: NodeProto, tensor: str, is_image: bool) -> bool:
    """Whether a linear layer takes the tensor as its data, and its weights are its own."""
    weights = graph.own(node, 1)
    if weights is None or list(node.input).count(tensor) != 1 or node.input[0] != tensor:
        return False
    if node.op_type == "Conv" or is_image:
        return node.op_type == "Conv" and is_image
    return weights.ndim == 2 and not _attribute(node, "transA", 0)


def _is_bias(graph: _Graph, node: NodeProto, tensor: str) -> bool:
    """Whether a node adds a constant vector, and nothing else uses the tensor or the vector."""
    if node.op_type != "Add" or graph.uses[tensor] != 1:
        return False
    other = node.input[1] if node.input[0] == tensor else node.input[0]
    vector = graph.constants.get(other)
    if vector is None or graph.uses[other] != 1 or not vector.ndim:
        return False
    return bool(vector.size == vector.shape[-1])


def _keeps_scales(graph: _Graph, node: NodeProto, tensor: str, is_image: bool) -> bool:
    """Whether f(s x) = s f(x) for positive s of each channel, with one output."""
    if node.input[0] != tensor or len([name for name in node.output if name]) != 1:
        return False
    if node.op_type in _SAME:
        return True
    if not is_image:
        return False
    return node.op_type in _POOLS or _is_flat(graph, node) or _is_zero_pad(node)


def _is_flat(graph: _Graph, node: NodeProto) -> bool:
    """Whether images become rows of features, each channel's values together."""
    if node.op_type == "Flatten":
        return _attribute(node, "axis", 1) == 1
    shape = graph.shapes.get(node.input[1]) if node.op_type == "Reshape" else None
    return shape is not None and len(shape) == 2 and shape[0] in (0, -1)


def _is_zero_pad(node: NodeProto) -> bool:
    if node.op_type != "Pad":
        return False
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
    return bool(mode != b"constant") or len(node.input) < 3 or not node.input[2]


def _scales(graph: _Graph, link: Link, peaks: Mapping[str, Floats], alpha: float) -> Floats | None:
    """One positive scale a channel of the producer, with a geometric mean of 1."""
    count = _channels(graph, graph.nodes[link.producer])
    active, heavy = np.zeros(count), np.zeros(count)
    for consumer in link.consumers:
        node = graph.nodes[consumer.node]
        weights = _by_input(node, graph.constants[node.input[1]])
        peak = peaks[consumer.tensor]
        if len(weights) % count or len(peak) != len(weights):
            return None
        active = np.maximum(active, peak.reshape(count, -1).max(axis=1))
        heavy = np.maximum(heavy, weights.reshape(count, -1).max(axis=1))
    if any(
        graph.constants[graph.nodes[p].input[i]].size not in (1, count)
        for p in link.adds
        for i in (0, 1)
        if graph.nodes[p].input[i] in graph.constants
    ):
        return None
    used = (active > 0) & (heavy > 0)
    if used.sum() < 2:
        return None
    logs = np.zeros(count)
    logs[used] = alpha * np.log(active[used]) - (1 - alpha) * np.log(heavy[used])
    logs[used] -= logs[used].mean()
    scales: Floats = np.exp(logs.clip(-np.log(_SPREAD), np.log(_SPREAD)))
    return scales


def _by_input(node: NodeProto, weights: Floats) -> Floats:
    """For each input channel, its largest weight relative to the largest of the same output.

    Weights are quantized for each output by itself, so its magnitude does not matter.
    """
    if node.op_type == "Conv":
        groups = _attribute(node, "group", 1)
        flat = np.abs(weights).reshape(groups, len(weights) // groups, weights.shape[1], -1)
        flat = flat / np.maximum(flat.max(axis=(2, 3), keepdims=True), 1e-30)
        return np.asarray(flat.max(axis=(1, 3)).reshape(-1), np.float64)
    table = np.abs(weights.T if _is_transposed(node) else weights)
    table = table / np.maximum(table.max(axis=0, keepdims=True), 1e-30)
    return np.asarray(table.max(axis=1), np.float64)


def _channels(graph: _Graph, node: NodeProto) -> int:
    weights = graph.constants[node.input[1]]
    return _width(node, weights) if node.op_type in LINEAR else weights.size


def _width(node: NodeProto, weights: Floats) -> int:
    """How many channels a linear layer gives."""
    if node.op_type == "Conv" or _is_transposed(node):
        return len(weights)
    return int(weights.shape[1])


def _divide_producer(graph: _Graph, node: NodeProto, scales: Floats) -> None:
    name = node.input[1]
    weights = graph.constants[name]
    if node.op_type in LINEAR and not (node.op_type == "Conv" or _is_transposed(node)):
        graph.constants[name] = weights / scales
    else:
        graph.constants[name] = weights / scales.reshape(-1, *[1] * (weights.ndim - 1))
    if len(node.input) > 2 and node.input[2]:
        bias = graph.constants[node.input[2]]
        graph.constants[node.input[2]] = bias / scales.reshape(
            (1,) * (bias.ndim - 1) + (len(scales),)
        )


def _divide_add(graph: _Graph, node: NodeProto, scales: Floats) -> None:
    name = next(name for name in node.input if name in graph.constants)
    vector = graph.constants[name]
    if vector.size == 1 < len(scales):
        graph.constants[name] = (vector.reshape(1) / scales).reshape(-1)
    else:
        graph.constants[name] = vector / scales


def _multiply_consumer(graph: _Graph, node: NodeProto, scales: Floats) -> None:
    name = node.input[1]
    weights = graph.constants[name]
    if node.op_type == "Conv":
        groups = _attribute(node, "group", 1)
        split = weights.reshape(groups, len(weights) // groups, *weights.shape[1:])
        each = np.repeat(scales, groups * weights.shape[1] // len(scales))
        each = each.reshape(groups, 1, weights.shape[1], *[1] * (weights.ndim - 2))
        graph.constants[name] = (split * each).reshape(weights.shape)
        return
    rows = weights.shape[1] if _is_transposed(node) else weights.shape[0]
    each = np.repeat(scales, rows // len(scales))
    graph.constants[name] = weights * (each if _is_transposed(node) else each[:, None])


def _is_transposed(node: NodeProto) -> bool:
    return node.op_type == "Gemm" and bool(_attribute(node, "transB", 0))


def _attribute(node: NodeProto, name: str, default: int) -> int:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else int(helper.get_attribute_value(found))
