"""What a `report.json` says, as far as it is understood: every field is looked for, none expected.

A bundle may have been built by another version, which measured less or more. What is absent or of
another type is not shown. The strict type of what this version writes is `report.Report`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from edgefleet_contract.canonical import Json
from edgefleet_converter.proof_words import proof_in_words

MAX_ITEMS: Final = 2000
"""Of a list that are shown."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A share with its 95 % interval, and of how many."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class ToldFlip:
    """A decision that changed, by places of classes, and how often. `truth` is None if unknown."""

    truth: int | None
    before: int
    after: int
    count: int


@dataclass(frozen=True, slots=True)
class Dot:
    """Something that was measured: a variant, a candidate, a point of a sweep.

    Sizes in bytes, times in the units of their names. `size_packed` is what compression leaves.
    An anchor is what another tool makes. `strength` is the lambda of pruning, `nonzero` the share
    of weights that it left. `note` says what is held against it.
    """

    name: str
    size: float | None = None
    size_packed: float | None = None
    latency_us: float | None = None
    p95_us: float | None = None
    load_ms: float | None = None
    ram_mib: float | None = None
    hardware: str = ""
    sqnr_db: float | None = None
    accuracy: Interval | None = None
    accuracy_float: Interval | None = None
    agreement: Interval | None = None
    kernels: tuple[str, ...] = ()
    golden_inputs: str = ""
    flips: tuple[ToldFlip, ...] | None = None
    strength: float | None = None
    nonzero: float | None = None
    loss: float | None = None
    is_chosen: bool = False
    is_front: bool = False
    is_anchor: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, and the SQNR that leaving it float32 wins, dB."""

    name: str
    gain_db: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often the values of a tensor fell into equal parts of `low` to `high`.

    The quantizer kept `clip_low` to `clip_high`, where that is said; `clipped` is the share of
    values outside, `at_end` that in the last step of the range.
    """

    name: str
    low: float
    high: float
    counts: tuple[float, ...]
    clip_low: float | None = None
    clip_high: float | None = None
    clipped: float | None = None
    at_end: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Everything. Lists are named as they are to be shown."""

    variants: tuple[Dot, ...] = ()
    anchors: tuple[Dot, ...] = ()
    candidates: tuple[tuple[str, tuple[Dot, ...]], ...] = ()
    sweeps: tuple[tuple[str, tuple[Dot, ...]], ...] = ()
    pruned: Dot | None = None
    layers: tuple[tuple[str, tuple[Layer, ...]], ...] = ()
    histograms: tuple[Histogram, ...] = ()
    held_out: int | None = None


def read_told(report: Json) -> Told:
    """What is understood of a report."""
    if not isinstance(report, dict):
        return Told()
    held_out = report.get("held_out")
    count = held_out.get("examples") if isinstance(held_out, dict) else None
    return Told(
        variants=tuple(_dot(one) for one in _tables(report.get("variants"))),
        anchors=tuple(
            replace(_dot(one), is_anchor=True, note=text(one.get("error")))
            for one in _tables(report.get("anchors"))
        ),
        candidates=tuple(_lists(report, "candidates", "search", inside="candidates")),
        sweeps=tuple(_lists(report, "lambda_sweep", "sweep", inside="points")),
        pruned=_dot(pruned) if isinstance(pruned := report.get("prune"), dict) else None,
        layers=tuple(_layers(report)),
        histograms=tuple(_histograms(report)),
        held_out=count if isinstance(count, int) and not isinstance(count, bool) else None,
    )


def tables_of(value: Json, name: str) -> list[dict[str, Json]]:
    """The tables in a list that a table has under a name."""
    return _tables(value.get(name)) if isinstance(value, dict) else []


def number(value: Json) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def text(value: Json) -> str:
    """A text of at most 200 characters; empty for all else."""
    return value[:200] if isinstance(value, str) else ""


def _dot(table: dict[str, Json]) -> Dot:
    speed = _inner(table, "measured")
    worth = _inner(table, "fidelity")
    kernels = table.get("kernels")
    strength = _first(table, "lambda", "lambda_")
    left, weights = number(table.get("norm0")), number(table.get("weights"))
    nonzero = _first(table, "nonzero", "nonzero_share")
    if nonzero is None and left is not None and weights:
        nonzero = left / weights
    accuracy = worth.get("accuracy", worth.get("accuracy_after"))
    return Dot(
        name=text(table.get("name")) or ("?" if strength is None else f"\u03bb {strength:.3g}"),
        size=_first(table, "size", "size_bytes"),
        size_packed=_first(
            table, "size_gzip", "size_zstd", "size_packed", "compressed_size", "compressed_bytes"
        ),
        latency_us=_first(speed, "p50_us", "latency_us"),
        p95_us=number(speed.get("p95_us")),
        load_ms=number(speed.get("load_ms")),
        ram_mib=number(speed.get("ram_mib")),
        hardware=text(speed.get("hardware")),
        sqnr_db=number(worth.get("sqnr_db")),
        accuracy=_interval(accuracy),
        accuracy_float=_interval(table.get("accuracy_float", table.get("accuracy_before"))),
        agreement=_interval(worth.get("agreement")),
        kernels=tuple(text(one) for one in kernels) if isinstance(kernels, list) else (),
        golden_inputs=text(table.get("golden_inputs", "")),
        flips=_flips(table.get("flips")),
        strength=strength,
        nonzero=nonzero,
        loss=number(table.get("loss")),
        is_chosen=table.get("chosen") is True,
        is_front=table.get("is_front") is True,
        note=text(table.get("outside")) or proof_in_words(table.get("proof")),
    )


def _inner(table: dict[str, Json], name: str) -> dict[str, Json]:
    """A table in a table, or the table itself where there is none."""
    inner = table.get(name)
    return inner if isinstance(inner, dict) else table


def _first(table: dict[str, Json], *names: str) -> float | None:
    found = (number(table.get(name)) for name in names)
    return next((one for one in found if one is not None), None)


def _interval(value: Json) -> Interval | None:
    if isinstance(value, dict):
        share, n = number(value.get("value")), value.get("n")
        low, high = number(value.get("low")), number(value.get("high"))
        count = n if isinstance(n, int) and not isinstance(n, bool) else None
        return None if share is None else Interval(share, low, high, count)
    share = number(value)
    return None if share is None else Interval(share)


def _flips(value: Json) -> tuple[ToldFlip, ...] | None:
    if not isinstance(value, list):
        return None
    found = []
    for table in _tables(value):
        truth, before, after, count = (
            _whole(table.get(name)) for name in ("truth", "before", "after", "count")
        )
        if before is not None and after is not None and count is not None:
            found.append(ToldFlip(truth, before, after, count))
    return tuple(found)


def _whole(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _owned(
    report: dict[str, Json], *names: str, inside: str = ""
) -> Iterator[tuple[str, list[dict[str, Json]]]]:
    """Lists of a name that stand at the report or at one of its variants, with the variant's.

    A list may also stand `inside` of a table of that name, which then may name the chosen one,
    and the accuracy of the float model on the examples of that list.
    """
    for owner in (report, *_tables(report.get("variants"))):
        said = "" if owner is report else text(owner.get("name"))
        for name in names:
            value = owner.get(name)
            found = value.get(inside) if isinstance(value, dict) else value
            tables = _tables(found)
            if isinstance(value, dict):
                chosen = text(value.get("chosen"))
                base = value.get("accuracy_float")
                tables = [
                    {"accuracy_float": base, "chosen": one.get("name") == chosen, **one}
                    for one in tables
                ]
            if tables:
                yield said, tables
                break


def _lists(
    report: dict[str, Json], *names: str, inside: str
) -> Iterator[tuple[str, tuple[Dot, ...]]]:
    for owner, tables in _owned(report, *names, inside=inside):
        yield owner, tuple(_dot(table) for table in tables)


def _layers(report: dict[str, Json]) -> Iterator[tuple[str, tuple[Layer, ...]]]:
    """Those that a report has, and those that a search found out."""
    found = [*_owned(report, "sensitivity", inside="layers")]
    for one in _tables(report.get("variants")):
        search = one.get("search")
        if isinstance(search, dict):
            name = text(one.get("name"))
            found += [(name, told) for _, told in _owned(search, "sensitivity", inside="layers")]
    for owner, tables in found:
        told = [(text(one.get("name")), number(one.get("gain_db"))) for one in tables]
        if layers := tuple(Layer(name, db) for name, db in told if db is not None):
            yield owner, layers


def _histograms(report: dict[str, Json]) -> Iterator[Histogram]:
    for owner, tables in _owned(report, "histograms", "calibration_histograms"):
        for table in tables:
            low, high, counts = (
                number(table.get("low")),
                number(table.get("high")),
                table.get("counts"),
            )
            if low is None or high is None or not low < high or not isinstance(counts, list):
                continue
            found = [number(one) for one in counts[:MAX_ITEMS]]
            name = ": ".join(part for part in (owner, text(table.get("name"))) if part)
            yield Histogram(
                name,
                low,
                high,
                tuple(max(0.0, one or 0.0) for one in found),
                number(table.get("clip_low")),
                number(table.get("clip_high")),
                number(table.get("clipped")),
                number(table.get("at_end")),
            )


def _tables(value: Json) -> list[dict[str, Json]]:
    if not isinstance(value, list):
        return []
    return [one for one in value[:MAX_ITEMS] if isinstance(one, dict)]
