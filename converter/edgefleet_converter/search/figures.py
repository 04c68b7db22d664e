"""What the report says of a search: every candidate with its figures. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_converter.boards.figures import BoardReport
from edgefleet_converter.metrics import Share, z_of

MAX_LAYERS: Final = 64
"""Layers that a report keeps."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Accuracy that is lost, as a share of the same examples, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Fidelity:
    """A candidate on some examples. What needs classes or a metric is absent without them."""

    sqnr_db: float
    accuracy: Share | None = None
    accuracy_drop: Drop | None = None
    agreement: Share | None = None
    metric: float | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """A loss of accuracy that was held on examples which the choice did not see.

    `chosen` is of the examples that the choice was made by. The choice and, where it was over
    there, smaller ones were then held against the others, one after another: `looks` of them, the
    last of which was taken. Its figures there are `proven`; their intervals hold for all looks
    together.
    """

    max_accuracy_drop: float
    looks: int
    choice_examples: int
    proof_examples: int
    chosen: Fidelity
    proven: Fidelity


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """One candidate. `outside` says what it is over; empty where it is inside the budget.

    `p50_us` is one inference on the machine of the build, one thread, or on the slowest of the
    boards; candidates were measured in turns. `is_front`: no other is better in one thing and no
    worse in the others.
    """

    name: str
    size: int
    size_zstd: int
    fidelity: Fidelity | None
    outside: str = ""
    p50_us: float | None = None
    is_front: bool = False


@dataclass(frozen=True, slots=True)
class LayerGain:
    """What it wins to leave one layer float32: the SQNR then less that of all in int8, dB."""

    name: str
    gain_db: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The layers that win most, and the candidate that they were left out of, with its SQNR."""

    base: str
    sqnr_db: float
    layers: tuple[LayerGain, ...]
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class SearchReport:
    """A search: the choice and all that it was chosen from.

    `is_complete` is False where the time limit ended it. `confirmed` are the figures of the choice
    on examples that the search did not see; `metric_float` is the float model's. `sensitivity` is
    there where layers had to stay float32.
    """

    target: str
    objective: str
    chosen: str
    is_complete: bool
    search_examples: int
    confirm_examples: int
    candidates: tuple[CandidateReport, ...]
    confirmed: Fidelity | None = None
    accuracy_float: Share | None = None
    metric_float: float | None = None
    hardware: str | None = None
    sensitivity: Sensitivity | None = None
    boards: tuple[BoardReport, ...] = ()
    """Those that the times are of; none: the machine of the build."""


def sensitivity_of(
    base: str, sqnr_db: float, found: Mapping[str, float], is_complete: bool
) -> Sensitivity:
    """The gains of layers by the SQNR that leaving each float gave, the largest first.

    >>> sensitivity_of("minmax-all", 20.0, {"a": 20.5, "b": 26.0}, True).layers[0]
    LayerGain(name='b', gain_db=6.0)
    """
    gains = [LayerGain(name, round(value - sqnr_db, 3)) for name, value in found.items()]
    order = sorted(gains, key=lambda one: -one.gain_db)  # ties stay in the order of the graph
    return Sensitivity(base, sqnr_db, tuple(order[:MAX_LAYERS]), is_complete)


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_], *, look: int = 0) -> Drop:
    """The share of examples that are right before, less that after, both [N].

    The interval is the adjusted Wald interval for paired proportions (Bonett & Price, JEBS 37,
    2012): one is added to each of the two counts of examples that changed. As wide as `z_of` says.

    >>> drop = paired_drop(np.ones(100, bool), np.arange(100) >= 3)
    >>> round(drop.value, 4), round(drop.low, 4), round(drop.high, 4)
    (0.03, -0.0132, 0.072)
    """
    n = len(before)
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    p, q = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = z_of(look) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Drop((lost - won) / n, p - q - half, p - q + half)
