"""Series as images of one row: what convolves and pools over one dimension, said over two.

TFLite has windows over height and width alone. A run of such operators, with activations and sums
between them, is lifted as one, so that a series is made an image once and a series again once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference

_WINDOWS: Final = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_ONE_BY_ONE: Final = (
    *("Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Gelu", "Clip"),
    *("BatchNormalization", "Identity", "Dropout"),
)
_JOINS: Final = ("Add", "Mul", "Sub", "Div", "Concat")
_NEW_AXIS: Final = 2
_AHEAD: Final = {"kernel_shape": [1], "strides": [1], "dilations": [1]}


def lift_series(model: ModelProto) -> ModelProto:
    """The model with its one-dimensional windows over images; itself where it has none.

    Its batch and its border stay what they are.
    """
    inferred = shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    if not any(_is_window(node, ranks) for node in model.graph.node):
        return model
    work = ModelProto()
    work.CopyFrom(model)
    nodes = list(_Lift(work, ranks).nodes())
    work.graph.ClearField("node")
    work.graph.node.extend(nodes)
    work.graph.ClearField("value_info")
    return work


def _is_window(node: NodeProto, ranks: dict[str, int]) -> bool:
    return node.op_type in _WINDOWS and ranks.get(node.input[0]) == 3


class _Lift:
    """`lifted` has the image of a series by its name; `there`, series that nodes may read."""

    def __init__(self, model: ModelProto, ranks: dict[str, int]) -> None:
        self._graph, self._ranks = model.graph, ranks
        self._constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self._lifted: dict[str, str] = {}
        self._there = {value.name for value in model.graph.input}
        axis = np.asarray([_NEW_AXIS], np.int64)
        self._axis = self._constant("lift.axis", axis)

    def nodes(self) -> Iterator[NodeProto]:
        """All nodes, in order."""
        for node in self._graph.node:
            yield from self._node(node)
        for value in self._graph.output:
            yield from self._lowered(value.name)

    def _node(self, node: NodeProto) -> Iterator[NodeProto]:
        computed = [name for name in node.input if name and name not in self._constants]
        inside = bool(computed) and all(name in self._lifted for name in computed)
        if _is_window(node, self._ranks):
            yield from self._raised(node.input[0])
            yield self._on_images(node, computed)
        elif inside and (node.op_type in _ONE_BY_ONE or self._joins(node)):
            yield self._on_images(node, computed)
        else:
            for name in computed:
                yield from self._lowered(name)
            self._there |= set(node.output)
            yield node

    def _joins(self, node: NodeProto) -> bool:
        given = {one.name: one.i for one in node.attribute}
        return node.op_type in _JOINS and (node.op_type != "Concat" or given["axis"] == 1)

    def _raised(self, name: str) -> Iterator[NodeProto]:
        if name not in self._lifted:
            self._lifted[name] = f"{name}.image"
            yield helper.make_node("Unsqueeze", [name, self._axis], [self._lifted[name]])

    def _lowered(self, name: str) -> Iterator[NodeProto]:
        if name in self._lifted and name not in self._there:
            self._there.add(name)
            yield helper.make_node("Squeeze", [self._lifted[name], self._axis], [name])

    def _on_images(self, node: NodeProto, computed: list[str]) -> NodeProto:
        made = NodeProto()
        made.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in computed:
                made.input[place] = self._lifted[name]
            elif name in self._constants and self._constants[name].ndim > 1:
                array = np.expand_dims(self._constants[name], -2)
                made.input[place] = self._constant(f"{name}.image", array)
        for one in made.attribute:
            if one.name in _AHEAD:
                values = [*_AHEAD[one.name], *one.ints]
            elif one.name == "pads":
                values = [0, one.ints[0], 0, one.ints[1]]
            else:
                continue
            one.ClearField("ints")
            one.ints.extend(values)
        made.output[0] = f"{node.output[0]}.image"
        self._lifted[node.output[0]] = made.output[0]
        return made

    def _constant(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        if name not in self._constants:
            self._graph.initializer.append(numpy_helper.from_array(array, name))
            self._constants[name] = array
        return name
