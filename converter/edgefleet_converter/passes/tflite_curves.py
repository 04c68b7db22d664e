"""Operators that work on each value alone: curves, bounds, and maxima of tensors, in TFLite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.tflite_translation import (
    NONE,
    RELU6,
    Given,
    Op,
    Translation,
    clip_range,
)

_UNARY: Final = {
    "Relu": Op.RELU,
    "Sigmoid": Op.LOGISTIC,
    "Tanh": Op.TANH,
    "HardSwish": Op.HARD_SWISH,
    "Abs": Op.ABS,
    "Exp": Op.EXP,
    "Neg": Op.NEG,
    "Sqrt": Op.SQRT,
}


class _Chain:
    """Operators one after another on a tensor in the layout that it has; the last gives `name`."""

    def __init__(self, to: Translation, node: NodeProto) -> None:
        source, self._name = node.input[0], node.output[0]
        self.last = source in to.channels_last
        self._to = to
        self._shape = to.shape(self._name)
        self._index = to.channels_last[source] if self.last else to.get(source)
        self._made = 0

    def constant(self, value: object) -> int:
        """A scalar, or an array that fits the layout."""
        self._made += 1
        array = np.asarray(value, np.float32)
        return self._to.file.constant(f"{self._name}.constant{self._made}", array)

    def step(self, code: int, *others: int, options: Any = None, is_end: bool = False) -> None:
        """One operator on what there is, and on other tensors."""
        inputs = [self._index, *others]
        if is_end:
            self._to.emit(code, inputs, self._name, options, last=self.last)
            return
        self._made += 1
        shape = self._shape
        if self.last:
            shape = (shape[0], shape[2], shape[3], shape[1])
        self._index = self._to.file.tensor(f"{self._name}.step{self._made}", shape)
        self._to.file.operator(code, inputs, [self._index], options)


def _unary(to: Translation, node: NodeProto, _: Given) -> None:
    if node.output[0] not in to.fused:  # else done by the operator before it
        _Chain(to, node).step(_UNARY[node.op_type], is_end=True)


def _clip(to: Translation, node: NodeProto, _: Given) -> None:
    if node.output[0] in to.fused:
        return
    low, high = clip_range(to, node)
    if math.isnan(low) or math.isnan(high):
        raise OperatorError("only constant bounds are written")
    chain = _Chain(to, node)
    if (low, high) == (0.0, 6.0):
        chain.step(Op.RELU6, is_end=True)
    elif (low, high) == (0.0, math.inf):
        chain.step(Op.RELU, is_end=True)
    elif (low, high) == (-math.inf, math.inf):
        to.alias(node.output[0], node.input[0])
    else:
        if low > -math.inf:
            end = high == math.inf
            options = schema.MaximumMinimumOptionsT()
            chain.step(Op.MAXIMUM, chain.constant(low), options=options, is_end=end)
        if high < math.inf:
            options = schema.MaximumMinimumOptionsT()
            chain.step(Op.MINIMUM, chain.constant(high), options=options, is_end=True)


def _hard_sigmoid(to: Translation, node: NodeProto, given: Given) -> None:
    """max(0, min(1, alpha x + beta)), as 1/6 of a RELU6, which int8 keeps."""
    alpha, beta = given.get("alpha", 0.2), given.get("beta", 0.5)
    chain = _Chain(to, node)
    if not math.isclose(6 * alpha, 1.0, rel_tol=1e-6):
        options = schema.MulOptionsT(fusedActivationFunction=NONE)
        chain.step(Op.MUL, chain.constant(6 * alpha), options=options)
    chain.step(
        Op.ADD,
        chain.constant(6 * beta),
        options=schema.AddOptionsT(fusedActivationFunction=RELU6),
    )
    chain.step(Op.MUL, chain.constant(1 / 6), options=schema.MulOptionsT(), is_end=True)


def _leaky(to: Translation, node: NodeProto, given: Given) -> None:
    options = schema.LeakyReluOptionsT(alpha=given.get("alpha", 0.01))
    _Chain(to, node).step(Op.LEAKY_RELU, options=options, is_end=True)


def _elu(to: Translation, node: NodeProto, given: Given) -> None:
    if given.get("alpha", 1.0) != 1.0:
        raise OperatorError("only alpha 1 is written")
    _Chain(to, node).step(Op.ELU, is_end=True)


def _prelu(to: Translation, node: NodeProto, _: Given) -> None:
    """One slope for each channel."""
    slopes = to.constant(node.input[1])
    chain = _Chain(to, node)
    rank = len(to.shape(node.input[0]))
    slopes = slopes.reshape((1,) * (rank - slopes.ndim) + slopes.shape)[0]
    if chain.last:
        slopes = slopes.transpose(1, 2, 0)
    chain.step(Op.PRELU, chain.constant(slopes), is_end=True)


def _gelu(to: Translation, node: NodeProto, given: Given) -> None:
    options = schema.GeluOptionsT(approximate=given.get("approximate", "none") == "tanh")
    _Chain(to, node).step(Op.GELU, options=options, is_end=True)


def _reciprocal(to: Translation, node: NodeProto, _: Given) -> None:
    source, name = node.input[0], node.output[0]
    last = source in to.channels_last
    index = to.channels_last[source] if last else to.get(source)
    one = to.file.constant(f"{name}.one", np.asarray(1, np.float32))
    to.emit(Op.DIV, [one, index], name, schema.DivOptionsT(), last=last)


def _power(to: Translation, node: NodeProto, _: Given) -> None:
    exponent = to.constant(node.input[1]).reshape(-1)
    chain = _Chain(to, node)
    if exponent.tolist() == [0.5]:
        chain.step(Op.SQRT, is_end=True)
    elif exponent.tolist() == [2.0]:
        source = node.input[0]
        index = to.channels_last[source] if chain.last else to.get(source)
        chain.step(Op.MUL, index, options=schema.MulOptionsT(), is_end=True)
    else:
        raise OperatorError(f"to the power of {exponent[:4].tolist()}; 2 and 0.5 are written")


def _extreme(to: Translation, node: NodeProto, _: Given) -> None:
    """Max and Min of a computed tensor and a constant number, or of two of one shape."""
    code = Op.MAXIMUM if node.op_type == "Max" else Op.MINIMUM
    names = sorted(node.input, key=lambda name: name in to.constants)
    if len(names) != 2 or names[0] in to.constants:
        raise OperatorError("only of two tensors, one of them computed")
    first = NodeProto()
    first.CopyFrom(node)
    first.input[0] = names[0]
    chain = _Chain(to, first)
    options = schema.MaximumMinimumOptionsT()
    if names[1] in to.constants:
        bound = to.constants[names[1]]
        if bound.size != 1:
            raise OperatorError("only a constant of one value is written")
        other = chain.constant(bound.reshape(()))
    else:
        if to.shape(names[0]) != to.shape(names[1]):
            raise OperatorError("only of tensors of one shape")
        other = to.get_channels_last(names[1]) if chain.last else to.get(names[1])
    chain.step(code, other, options=options, is_end=True)


HANDLERS: Final[dict[str, Callable[[Translation, NodeProto, Given], None]]] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(("Max", "Min"), _extreme),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "PRelu": _prelu,
    "Gelu": _gelu,
    "Reciprocal": _reciprocal,
    "Pow": _power,
}
