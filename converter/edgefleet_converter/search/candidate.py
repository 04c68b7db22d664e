"""One way to make a float model int8, and the list of those that are tried. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet_contract.canonical import Json

ALPHAS: Final = (0.0, 0.5, 0.75)
"""Strengths of equalization (SmoothQuant's alpha); 0 stands for the graph as it is."""


class Ranges(StrEnum):
    """Where 8-bit ranges end: the extremes seen, or so many percent of the values at each end."""

    MINMAX = "minmax"
    P99_999 = "p99.999"
    P99_99 = "p99.99"


class Operators(StrEnum):
    """Which operators become 8-bit: all that can, or fewer, since not every 8-bit kernel is fast.

    `linear`: convolutions, products and dense layers. `float-out`, `linear-float-out`: what dense
    layers give stays float32. `straight`: all but curves (softmax, hard-swish and the like).
    `matrix`: linear without depthwise convolutions; `straight-matrix`: straight without them.
    """

    ALL = "all"
    LINEAR = "linear"
    FLOAT_OUT = "float-out"
    LINEAR_FLOAT_OUT = "linear-float-out"
    STRAIGHT = "straight"
    MATRIX = "matrix"
    STRAIGHT_MATRIX = "straight-matrix"


BY_TENSOR: Final = frozenset(
    {Operators.ALL, Operators.FLOAT_OUT, Operators.LINEAR_FLOAT_OUT, Operators.STRAIGHT}
)
"""Sets of operators that are tried with one scale a tensor as well: those that make small files."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A float graph that candidates start from, and what is known of it.

    `layers` are its linear operators in order; `ranges` those that differ from one another,
    `operators` the sets that do, `dynamic` those that dynamic ranges are tried for. `links` is how
    many layers were rescaled. `has_old_dense`: dense layers with dynamic ranges and one scale a
    tensor are tried, which older runtimes have a kernel for.
    """

    alpha: float
    links: int
    layers: tuple[str, ...]
    ranges: tuple[Ranges, ...] = (Ranges.MINMAX,)
    operators: tuple[Operators, ...] = (Operators.ALL,)
    dynamic: tuple[Operators, ...] = ()
    has_old_dense: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe of int8. `floats` names the layers that stay float32.

    Dynamic: weights are 8-bit, ranges of activations are taken at each inference. By tensor:
    weights have one scale a tensor, not one a channel: coarser, and smaller when compressed. With
    dynamic ranges those of dense layers alone have: runtimes compute no such convolution rightly.
    """

    alpha: float = 0.0
    ranges: Ranges = Ranges.MINMAX
    operators: Operators = Operators.ALL
    is_dynamic: bool = False
    by_tensor: bool = False
    floats: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Short words in a fixed order; two candidates of a search have two names."""
        words = [f"eq{self.alpha:g}"] if self.alpha else []
        if self.is_dynamic:
            words += ["dynamic"]
            words += [self.operators.value] if self.operators is not Operators.ALL else []
        else:
            words += [self.ranges.value, self.operators.value]
        words += ["tensor"] if self.by_tensor else []
        words += [f"float({'+'.join(self.floats)})"] if self.floats else []
        return "-".join(words)

    def params(self) -> dict[str, Json]:
        """For a worker, and for the digest that the cache goes by."""
        return {
            "alpha": self.alpha,
            "ranges": self.ranges.value,
            "operators": self.operators.value,
            "is_dynamic": self.is_dynamic,
            "by_tensor": self.by_tensor,
            "floats": list(self.floats),
        }


def candidates(graphs: Mapping[float, Graph]) -> tuple[Candidate, ...]:
    """All candidates that whole graphs give, the plainest first.

    A graph in which equalization found nothing to rescale gives none beside the one as it is.
    """
    found: list[Candidate] = []
    for alpha, graph in graphs.items():
        if alpha and not graph.links:
            continue
        found += [
            Candidate(alpha, ranges, operators)
            for operators in graph.operators
            for ranges in graph.ranges
        ]
        found += [
            Candidate(alpha, operators=operators, by_tensor=True)
            for operators in graph.operators
            if operators in BY_TENSOR
        ]
        found += [
            Candidate(alpha, operators=operators, is_dynamic=True, by_tensor=by_tensor)
            for by_tensor in (False, True)[: 1 + graph.has_old_dense]
            for operators in graph.dynamic
        ]
    return tuple(found)
