"""`report.json`: what was measured of a build, for people and for the fleet's pages.

Floats are allowed here; `bundle.json` holds none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from edgefleet_contract import codec
from edgefleet_contract.bundle import Digest
from edgefleet_converter.boards.figures import BoardReport, OnBoard
from edgefleet_converter.golden import Stray
from edgefleet_converter.metrics import Share
from edgefleet_converter.search.figures import Proof, SearchReport, Sensitivity

SCHEMA: Final = "edgefleet.report/1"
MAX_FLIPS: Final = 200
"""Kinds of changed decisions that are kept for each variant."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that went in: its digest and, for examples, how many."""

    sha256: Digest
    size: int
    examples: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Speed and memory on this machine, one thread, batch 1.

    `load_ms`: file to first answer. `ram_mib`: what the model added to a process at its peak.
    """

    hardware: str
    load_ms: float
    p50_us: float
    p95_us: float
    ram_mib: float


@dataclass(frozen=True, slots=True)
class Flip:
    """A decision that changed, by places of classes: the float model's, the variant's, how often
    in the held-out examples whose class is `truth`."""

    before: int
    after: int
    count: int
    truth: int | None = None


@dataclass(frozen=True, slots=True)
class PassReport:
    """A pass over a finished file: bytes before and after, and what both cost on this machine,
    measured in turns; `ram_mib` is private memory. None where nothing was measured."""

    name: str
    size_before: int
    size: int
    load_ms_before: float | None = None
    load_ms: float | None = None
    ram_mib_before: float | None = None
    ram_mib: float | None = None


@dataclass(frozen=True, slots=True)
class HistogramReport:
    """Values of a tensor in equal parts of `low` to `high`, and the range that int8 keeps.

    `clipped` is the share of values outside of it. Of TFLite, whose values are seen behind their
    quantizer, `at_end` is the share in the last step of the range instead.
    """

    name: str
    low: float
    high: float
    counts: tuple[int, ...]
    clip_low: float
    clip_high: float
    clipped: float | None = None
    at_end: float | None = None


@dataclass(frozen=True, slots=True)
class VariantReport:
    """One variant against the float model. Shares have 95 % Wilson intervals.

    `accuracy_float` and `accuracy` need labels; `agreement` compares decisions with the float
    model; `sqnr_db` the outputs. `size_gzip` is what compression leaves, level 6. `kernels` names
    the implementations that were compared to choose the golden vectors, and `strays` how far each
    was off; the tolerance is `golden_floor`, or twice the largest of them on the vectors. `passes`
    are those that were run over the finished file. `search` is what the int8 recipe was chosen
    from, where it was searched for. `sensitivity` and `histograms` (the most clipped tensors) are
    there where the recipe asks for them.
    """

    name: str
    size: int
    size_gzip: int
    sqnr_db: float
    max_abs_err: float
    golden_vectors: int
    golden_max_abs_err: float
    kernels: tuple[str, ...]
    accuracy_float: Share | None = None
    accuracy: Share | None = None
    agreement: Share | None = None
    flips: tuple[Flip, ...] | None = None
    """The most frequent first; None where decisions were not compared."""
    measured: Measured | None = None
    golden_inputs: str = ""
    """Where the inputs of golden vectors come from, by the recipe's word."""
    golden_floor: float | None = None
    strays: dict[str, Stray] | None = None
    drift_bytes: int | None = None
    """Of the drift reference; None where there is none."""
    passes: tuple[PassReport, ...] = ()
    search: SearchReport | None = None
    sensitivity: Sensitivity | None = None
    histograms: tuple[HistogramReport, ...] | None = None
    boards: tuple[OnBoard, ...] = ()
    """On each board that measured, in the order of the recipe."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What pruning did to the float model that the variants are made of.

    `lambda_`: weights with `w^2 < 2 lambda` became zero; `norm0` of `weights` are left. The shares
    are of the float model before and after, over the examples that the choice of lambda did not
    see: all of them where it was given. `agreement` compares the two. `proof` is there where a
    budget chose lambda.
    """

    lambda_: float
    norm0: int
    weights: int
    accuracy_before: Share | None = None
    accuracy_after: Share | None = None
    agreement: Share | None = None
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class PrunedLayer:
    """A tensor of weights: its name, how many are not zero, of how many."""

    name: str
    norm0: int
    weights: int


@dataclass(frozen=True, slots=True)
class Point:
    """An int8 ONNX model of one lambda. `loss`: cross-entropy, nats, where classes are known.

    `norm0` of `weights` are not zero, by layer in `layers`. `agreement` and `sqnr_db` are against
    the float model that came in, `size_zstd` is the file at level 19.
    """

    lambda_: float
    norm0: int
    weights: int
    sqnr_db: float
    size: int
    size_zstd: int
    loss: float | None = None
    accuracy: Share | None = None
    agreement: Share | None = None
    measured: Measured | None = None
    layers: tuple[PrunedLayer, ...] = ()


@dataclass(frozen=True, slots=True)
class LambdaSweep:
    """What other lambdas would have cost, rising; `is_complete` is False where time was up."""

    is_complete: bool
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class AnchorReport:
    """What another tool makes of the same float model at its defaults; none of it is packed.

    `measured` is absent where the variants are programs, whose times are those of the whole.
    `error` says why there are no figures.
    """

    name: str
    target: str
    size: int = 0
    size_gzip: int = 0
    sqnr_db: float | None = None
    accuracy: Share | None = None
    agreement: Share | None = None
    measured: Measured | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `parity` has, for each copy, its largest relative error to the source."""

    model: str
    version: int
    source_kind: str
    source: DataFile
    held_out: DataFile
    parity: dict[str, float]
    variants: tuple[VariantReport, ...]
    tools: dict[str, str]
    calibration: DataFile | None = None
    prune: PruneReport | None = None
    anchors: tuple[AnchorReport, ...] | None = None
    lambda_sweep: LambdaSweep | None = None
    boards: tuple[BoardReport, ...] = ()
    schema: str = SCHEMA


def render_report(report: Report) -> bytes:
    """The bytes of `report.json`: sorted keys, two spaces, one line end."""
    return (json.dumps(codec.encode(report), indent=2, sort_keys=True) + "\n").encode("utf-8")
