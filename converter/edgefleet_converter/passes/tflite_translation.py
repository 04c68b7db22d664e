"""The state of a translation from ONNX to TFLite: what is known of each name so far.

Images: ONNX keeps channels first (NCHW), TFLite last (NHWC). A tensor of four dimensions may exist
in both layouts here; a transpose is written where one is asked for and only the other exists, so
that a run of convolutions has one at each end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.tflite_file import TfliteFile

Array: TypeAlias = "NDArray[np.generic]"
Given: TypeAlias = "dict[str, Any]"
Op = schema.BuiltinOperator
NONE: Final = schema.ActivationFunctionType.NONE
RELU: Final = schema.ActivationFunctionType.RELU
RELU6: Final = schema.ActivationFunctionType.RELU6


@dataclass(slots=True)
class Translation:
    """What is known so far: constants by name, tensors by name and layout, shapes as inferred."""

    file: TfliteFile
    constants: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    uses: dict[str, list[NodeProto]]
    graph_outputs: frozenset[str]
    makers: dict[str, NodeProto] = field(default_factory=dict)
    plain: dict[str, int] = field(default_factory=dict)
    channels_last: dict[str, int] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, model: ModelProto) -> Translation:
        """A translation of a model whose shapes were inferred."""
        graph = model.graph
        uses: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                uses.setdefault(name, []).append(node)
        shapes = {}
        for value in (*graph.value_info, *graph.input, *graph.output):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims
            )
        return cls(
            TfliteFile(),
            {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer},
            shapes,
            uses,
            frozenset(value.name for value in graph.output),
            {name: node for node in graph.node for name in node.output},
        )

    def feed(self, name: str) -> int:
        """The tensor of a graph input."""
        self.plain[name] = self.file.tensor(name, self.shape(name))
        return self.plain[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in ONNX's layout; only the first dimension may vary.

        Raises:
            OperatorError: it was not inferred, or another dimension varies.
        """
        if name in self.constants:
            return self.constants[name].shape
        shape = self.shapes.get(name)
        if shape is None or -1 in shape[1:]:
            known = "unknown" if shape is None else list(shape)
            raise OperatorError(f"the shape of {name!r} is {known}; only the batch may vary")
        return shape

    def get(self, name: str) -> int:
        """The tensor of a name in ONNX's layout."""
        if name in self.constants:
            if name not in self.plain:
                array = self.constants[name].astype(np.float32)
                self.plain[name] = self.file.constant(name, array)
            return self.plain[name]
        if name not in self.plain:
            self.plain[name] = self._transpose(self.channels_last[name], name, (0, 3, 1, 2))
        return self.plain[name]

    def get_channels_last(self, name: str) -> int:
        """The tensor of a name of four dimensions as NHWC."""
        if name not in self.channels_last:
            index = self._transpose(self.plain[name], f"{name}.nhwc", (0, 2, 3, 1))
            self.channels_last[name] = index
        return self.channels_last[name]

    def constant(self, name: str) -> Array:
        """The values of a name.

        Raises:
            OperatorError: it is computed, not constant.
        """
        if name not in self.constants:
            raise OperatorError(f"{name!r} has to be constant")
        return self.constants[name]

    def emit(
        self, code: int, inputs: list[int], name: str, options: Any = None, *, last: bool = False
    ) -> None:
        """Write an operator that gives `name`, in NHWC where `last`."""
        shape = self.shape(name)
        if last:
            shape = (shape[0], shape[2], shape[3], shape[1])
        index = self.file.tensor(f"{name}.nhwc" if last else name, shape)
        self.file.operator(code, inputs, [index], options)
        (self.channels_last if last else self.plain)[name] = index

    def output(self, name: str) -> int:
        """The tensor of a graph output, in ONNX's layout."""
        if name in self.constants:
            raise OperatorError(f"output {name!r} is constant", hint="take it out of the model")
        return self.get(name)

    def activation(self, node: NodeProto) -> tuple[int, str]:
        """The activation that can be fused into a node, and the name that it then gives."""
        name = node.output[0]
        uses = self.uses.get(name, [])
        if len(uses) != 1 or name in self.graph_outputs:
            return NONE, name
        after = uses[0]
        kind = NONE
        if after.op_type == "Relu":
            kind = RELU
        elif after.op_type == "Clip" and clip_range(self, after) == (0.0, 6.0):
            kind = RELU6
        if kind == NONE:
            return NONE, name
        self.fused[after.output[0]] = name
        return kind, after.output[0]

    def is_never_negative(self, name: str) -> bool:
        """Whether no value of a tensor can be below zero, by the operators that make it."""
        node = self.makers.get(name)
        if node is None:
            return False
        if node.op_type == "Clip":
            return clip_range(self, node)[0] >= 0
        if node.op_type in ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp"):
            return True
        passing = ("MaxPool", "AveragePool", "Concat", "Identity", "Dropout", "Pad", "Add")
        return node.op_type in passing and all(
            self.is_never_negative(one)
            for one in node.input[: 1 if node.op_type == "Pad" else None]
        )

    def alias(self, name: str, source: str) -> None:
        """Let a name stand for another tensor."""
        if source in self.constants:
            self.constants[name] = self.constants[source]
            return
        for layout in (self.plain, self.channels_last):
            if source in layout:
                layout[name] = layout[source]

    def _transpose(self, index: int, name: str, order: tuple[int, ...]) -> int:
        shape = self.file.shape(index)
        permutation = self.file.constant(f"{name}.order", np.asarray(order, np.int32))
        result = self.file.tensor(name, tuple(shape[axis] for axis in order))
        self.file.operator(Op.TRANSPOSE, [index, permutation], [result], schema.TransposeOptionsT())
        return result


def attributes(node: NodeProto) -> Given:
    """The attributes of a node as Python values, strings decoded."""
    found: Given = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return found


def clip_range(to: Translation, node: NodeProto) -> tuple[float, float]:
    """The bounds of a Clip: infinite where it has none, NaN where they are computed."""
    bounds = [float("-inf"), float("inf")]
    for index, name in enumerate(node.input[1:3]):
        if name and name in to.constants:
            bounds[index] = float(to.constants[name].astype(np.float64).reshape(-1)[0])
        elif name:
            bounds[index] = float("nan")
    return bounds[0], bounds[1]
