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
from edgefleet_converter.metrics import Share
from edgefleet_converter.search.figures import SearchReport

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
class VariantReport:
    """One variant against the float model. Shares have 95 % Wilson intervals.

    `accuracy_float` and `accuracy` need labels; `agreement` compares decisions with the float
    model; `sqnr_db` the outputs. `size_gzip` is what compression leaves, level 6. `kernels` names
    the implementations that were compared to choose the golden vectors. `search` is what the int8
    recipe was chosen from, where it was searched for.
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
    search: SearchReport | None = None
    boards: tuple[OnBoard, ...] = ()
    """On each board that measured, in the order of the recipe."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What pruning did to the float model that the variants are made of.

    `lambda_`: weights with `w^2 < 2 lambda` became zero; `norm0` of `weights` are left. The shares
    are of the float model before and after, over the examples that the choice of lambda did not
    see: all of them where it was given. `agreement` compares the two.
    """

    lambda_: float
    norm0: int
    weights: int
    accuracy_before: Share | None = None
    accuracy_after: Share | None = None
    agreement: Share | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `parity` has, for each float copy, its largest relative error to the source."""

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
    boards: tuple[BoardReport, ...] = ()
    schema: str = SCHEMA


def render_report(report: Report) -> bytes:
    """The bytes of `report.json`: sorted keys, two spaces, one line end."""
    return (json.dumps(codec.encode(report), indent=2, sort_keys=True) + "\n").encode("utf-8")
