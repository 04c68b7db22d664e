"""Unstructured pruning of an ONNX model: the smallest weights become zero, all layers together.

Minimised is `L(W) + lambda * sum_i ||W_i||_0`, where `||W_i||_0` counts the weights of layer i that
are not zero. The proximal step of the penalty has a closed form, the hard threshold: of
`(v - w)^2 / 2 + lambda * [v != 0]` the minimum is at v = 0 where `w^2 < 2 lambda`, else at v = w
(Blumensath and Davies, "Iterative Thresholding for Sparse Approximations", J. Fourier Anal. Appl.
14, 2008; Parikh and Boyd, "Proximal Algorithms", 2014). One step is taken from the trained weights;
nothing is trained again. One lambda holds for every layer.

Pruned are the float32 weights of Conv, Gemm and MatMul. Biases, normalisation and everything that
another operator reads, too, are left alone. Zeros cost as much to store and to multiply as other
numbers: what is gained is that the file compresses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError

Floats = NDArray[np.float32]

WEIGHT_PLACES: Final = {"Conv": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
"""The inputs of an operator that are weights where they are constant."""

FIRST_SHARE: Final = 0.01
"""The share of the weights that the first lambda over 0 of a grid zeroes, or more."""

LEAST_RATIO: Final = 1e-6
"""The first lambda over 0 against the last, at least. Weight decay leaves weights down to 1e-40;
those under a thousandth of the largest are as good as zero: no points of a grid are for them."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """A model with zeros: what lambda did it, how many weights are not zero, of how many.

    `layers` has the two counts of each tensor, in the order of the file.
    """

    model: ModelProto
    lambda_: float
    layers: dict[str, tuple[int, int]]

    @property
    def norm0(self) -> int:
        """How many weights are not zero."""
        return sum(left for left, _ in self.layers.values())

    @property
    def weights(self) -> int:
        """How many there are."""
        return sum(size for _, size in self.layers.values())


def hard_threshold(weights: Floats, lambda_: float) -> Floats:
    """The weights with zeros where `w^2 < 2 lambda`; the same shape. lambda 0 changes no bit.

    The squares are compared in float64, in which they are exact.

    >>> hard_threshold(np.asarray([0.1, -0.5, 2.0], np.float32), 0.1).tolist()
    [0.0, -0.5, 2.0]
    """
    squares = weights.astype(np.float64) ** 2
    return np.where(squares < 2 * lambda_, np.float32(0), weights)


def lambda_for(weights: Floats, share: float) -> float:
    """The least lambda that zeroes at least this share of the weights that are not zero.

    0 for a share of none of them. With equal weights at the border, all of them go.
    """
    squares = np.sort(_squares(weights))
    count = round(share * len(squares))
    if count < 1:
        return 0.0
    return float(np.nextafter(squares[min(count, len(squares)) - 1] / 2, np.inf))


def lambda_grid(weights: Floats, points: int) -> tuple[float, ...]:
    """0, and lambdas that rise by a constant factor until no weight is left."""
    high = lambda_for(weights, 1.0)
    low = max(lambda_for(weights, FIRST_SHARE), LEAST_RATIO * high)
    if points < 3 or low >= high:
        return (0.0, high)
    # The ends themselves, since a logarithm and back may fall short of the largest weight.
    return (0.0, low, *np.geomspace(low, high, points - 1)[1:-1].tolist(), high)


def weight_names(model: ModelProto) -> tuple[str, ...]:
    """The initialisers that are pruned, in the order of the file.

    Raises:
        OperatorError: weights are in another file, or there are none.
    """
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise OperatorError(
                f"the weights of {tensor.name!r} are in another file",
                hint="save it as one file: onnx.save(model, path, save_as_external_data=False)",
            )
    uses = Counter(name for node in _all_nodes(model.graph) for name in node.input)
    uses.update(value.name for value in (*model.graph.input, *model.graph.output))
    as_weights = Counter(
        node.input[place]
        for node in model.graph.node
        for place in WEIGHT_PLACES.get(node.op_type, ())
        if place < len(node.input)
    )
    found = tuple(
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) >= 2
        and as_weights[tensor.name]
        and as_weights[tensor.name] == uses[tensor.name]
    )
    if not found:
        raise OperatorError(
            "nothing to prune: no float32 weights of Conv, Gemm or MatMul",
            hint="a model that is int8 already, or has no such layers, is not pruned",
        )
    return found


def all_weights(model: ModelProto) -> Floats:
    """Every weight that is pruned, in one row."""
    names = set(weight_names(model))
    return np.concatenate([_array(t).ravel() for t in model.graph.initializer if t.name in names])


def prune(model: ModelProto, lambda_: float) -> Pruned:
    """A copy of the model after one proximal step.

    Raises:
        OperatorError: nothing in it can be pruned.
    """
    names = set(weight_names(model))
    made = ModelProto()
    made.CopyFrom(model)
    layers: dict[str, tuple[int, int]] = {}
    for tensor in made.graph.initializer:
        if tensor.name not in names:
            continue
        weights = hard_threshold(_array(tensor), lambda_)
        layers[tensor.name] = int(np.count_nonzero(weights)), weights.size
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return Pruned(made, lambda_, layers)


def write_pruned(*, lambda_: float | None = None, share: float | None = None) -> dict[str, Json]:
    """`pruned.onnx` from `model.onnx`, by a lambda or a share of weights to zero. A worker task.

    Returns `lambda`, `norm0`, `weights`, and `layers`: the name and the two counts of each.
    """
    model = onnx.load("model.onnx", load_external_data=False)
    if lambda_ is None:
        lambda_ = lambda_for(all_weights(model), share or 0.0)
    made = prune(model, lambda_)
    onnx.save(made.model, Path("pruned.onnx"))
    layers: list[Json] = [[name, *counts] for name, counts in made.layers.items()]
    return {
        "lambda": made.lambda_,
        "norm0": made.norm0,
        "weights": made.weights,
        "layers": layers,
    }


def choose_grid(*, points: int) -> dict[str, Json]:
    """The `lambdas` of `model.onnx`; see `lambda_grid`. A worker task."""
    model = onnx.load("model.onnx", load_external_data=False)
    return {"lambdas": list(lambda_grid(all_weights(model), points))}


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside it (If, Loop, Scan)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _all_nodes(inner)


def _array(tensor: TensorProto) -> Floats:
    return np.asarray(numpy_helper.to_array(tensor), np.float32)


def _squares(weights: Floats) -> NDArray[np.float64]:
    """The squares of those that are not zero."""
    return np.asarray(weights[weights != 0].astype(np.float64) ** 2, np.float64)
