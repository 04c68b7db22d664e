"""How each ONNX operator is said in TFLite.

Images: ONNX keeps channels first (NCHW), TFLite last (NHWC). A tensor of four dimensions may exist
in both layouts here; transposes are written where one is asked for and only the other exists, so
that a run of convolutions has one at each end.
"""

from __future__ import annotations

from collections.abc import Callable
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
        elif after.op_type == "Clip" and _clip_range(self, after) == (0.0, 6.0):
            kind = RELU6
        if kind == NONE:
            return NONE, name
        self.fused[after.output[0]] = name
        return kind, after.output[0]

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
    if len(to.shape(node.input[0])) != 2:
        raise OperatorError("only inputs of two dimensions are written")
    activation, name = to.activation(node)
    options = schema.FullyConnectedOptionsT(fusedActivationFunction=activation)
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
    return all(name in to.channels_last for name in computed) and all(
        to.constants[name].ndim in (0, 4) or to.constants[name].size == 1
        for name in names
        if name in to.constants
    )


def _operand(to: Translation, name: str, result: str, *, last: bool) -> int:
    if name not in to.constants:
        return to.get_channels_last(name) if last else to.get(name)
    array = to.constants[name].astype(np.float32)
    if last and array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    elif array.size == 1:
        array = array.reshape(())
    elif array.ndim == 2 and array.shape[0] == 1:
        array = array.reshape(-1)
    return to.file.constant(f"{result}.{name}", array)


_UNARY: Final = {"Relu": Op.RELU, "Sigmoid": Op.LOGISTIC, "Tanh": Op.TANH}


def _unary(to: Translation, node: NodeProto, _: Given) -> None:
    source, name = node.input[0], node.output[0]
    if name in to.fused:  # done by the operator before it
        return
    last = source in to.channels_last
    index = to.channels_last[source] if last else to.get(source)
    to.emit(_UNARY[node.op_type], [index], name, last=last)


def _clip(to: Translation, node: NodeProto, _: Given) -> None:
    source, name = node.input[0], node.output[0]
    if name in to.fused:
        return
    low, high = _clip_range(to, node)
    if (low, high) not in ((0.0, 6.0), (0.0, float("inf"))):
        raise OperatorError(f"clips to {low} .. {high}; 0 .. 6 is written")
    last = source in to.channels_last
    index = to.channels_last[source] if last else to.get(source)
    to.emit(Op.RELU6 if high == 6.0 else Op.RELU, [index], name, last=last)


def _clip_range(to: Translation, node: NodeProto) -> tuple[float, float]:
    bounds = [float("-inf"), float("inf")]
    for index, name in enumerate(node.input[1:3]):
        if name and name in to.constants:
            bounds[index] = float(to.constants[name].astype(np.float64).reshape(-1)[0])
        elif name:
            bounds[index] = float("nan")
    return bounds[0], bounds[1]


def _softmax(to: Translation, node: NodeProto, given: Given) -> None:
    rank = len(to.shape(node.input[0]))
    if given.get("axis", -1) not in (-1, rank - 1):
        raise OperatorError("only over the last axis")
    to.emit(Op.SOFTMAX, [to.get(node.input[0])], node.output[0], schema.SoftmaxOptionsT(beta=1.0))


def _reshape(to: Translation, node: NodeProto, _: Given) -> None:
    source, name = node.input[0], node.output[0]
    before, after = to.shape(source), list(to.shape(name))
    if before[:1] == (-1,) and after[:1] != [-1]:
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
    "Clip": _clip,
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Identity", "Dropout"), _identity),
    "Cast": _cast,
    "Constant": _constant,
    "Scaler": _scaler,
}
