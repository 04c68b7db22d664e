"""The parts of the page that show what was measured. What was not measured makes no part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edgefleet_converter.metrics import EXACT_DB
from edgefleet_converter.page.charts import (
    LATENCY,
    PACKED,
    SIZE,
    STRENGTH,
    ZEROS,
    Axis,
    is_told_by_noise,
    scatter,
)
from edgefleet_converter.page.markup import Child, Html, el
from edgefleet_converter.page.parts import of, table, titled
from edgefleet_converter.page.told import Dot, Interval, Told

_MANY: Final = 6


def headline(told: Told) -> Html | None:
    """One card a variant: its accuracy, and its size and speed against the float one."""
    if not told.variants:
        return None
    cards = []
    for dot in told.variants:
        base = _float_of(dot, told.variants)
        big = _percent(dot.accuracy) or _db(dot.sqnr_db)
        was = _percent(dot.accuracy_float)
        cards.append(
            el(
                "div",
                el("small", dot.name),
                el("strong", big),
                el("small", f"float model {was}") if was else None,
                el("small", _against("size", dot.size, base.size if base else None)),
                el("small", _against("latency", dot.latency_us, base.latency_us if base else None)),
                class_="card",
            )
        )
    return el("div", cards, class_="cards")


def variants(told: Told) -> Child:
    """The table of variants."""
    if not told.variants:
        return titled("Variants", el("p", "This bundle has no report of figures.", class_="muted"))
    hardware = sorted({dot.hardware for dot in told.variants if dot.hardware})
    notes = [
        "Shares with their 95 % Wilson intervals",
        f", of {told.held_out} held-out examples" if told.held_out is not None else "",
        "; compressed is gzip, level 6",
        f"; times and memory on {', '.join(hardware)}, one thread" if hardware else "",
        ".",
    ]
    return titled("Variants", _dots_table(told.variants), el("p", notes, class_="muted"))


def accuracy_charts(told: Told) -> Child:
    """Accuracy against size and against latency."""
    dots = (*told.variants, *told.anchors)
    found = _charts(dots, (SIZE, LATENCY), _anchor(told.variants))
    if found is None:
        return None
    note = "The line joins what nothing else beats; whiskers are 95 % intervals; rings are float."
    if is_told_by_noise(dots):
        note = (
            "Accuracy does not tell them apart, noise does. The line joins what nothing else beats."
        )
    if not told.anchors:
        return titled("What accuracy costs", found, el("p", note, class_="muted"))
    peers = "Squares on edge: other tools' int8 of the same float model, at their defaults."
    return titled(
        "What accuracy costs",
        found,
        el("p", note, " ", peers, class_="muted"),
        _dots_table(told.anchors),
    )


def candidates(told: Told) -> Child:
    """What was tried when int8 was looked for, and what was taken."""
    return [
        titled(
            of("Candidates of the search", owner),
            _charts(dots, (SIZE, LATENCY), _anchor(dots) or _anchor(told.variants)),
            *_tried([replace(dot, accuracy_float=None) for dot in dots]),
        )
        for owner, dots in told.candidates
    ]


def _tried(dots: Sequence[Dot]) -> list[Child]:
    """The choice and the front; where many others were tried, those are folded away."""
    best = sorted((d for d in dots if d.is_chosen or d.is_front), key=lambda d: not d.is_chosen)
    rest = [dot for dot in dots if not (dot.is_chosen or dot.is_front)]
    if not best or len(rest) < _MANY:
        return [_dots_table(dots, chosen=True)]
    note = "The choice, and what no other candidate beats in one thing without being worse in one."
    more = el("details", el("summary", f"{len(rest)} others"), _dots_table(rest))
    return [_dots_table(best, chosen=True), el("p", note, class_="muted"), more]


def _anchor(dots: Sequence[Dot]) -> float | None:
    """The accuracy of the float model that the dots were made of."""
    return next((dot.accuracy_float.value for dot in dots if dot.accuracy_float), None)


def pruning(told: Told) -> Child:
    """What pruning left of the model, and what each strength of a sweep would."""
    parts: list[Child] = []
    if told.pruned is not None:
        parts.append(titled("Pruning", el("div", _pruned(told.pruned), class_="card")))
    for owner, dots in told.sweeps:
        parts.append(
            titled(
                of("Pruning, over lambda", owner),
                _charts(dots, (ZEROS, PACKED, LATENCY, STRENGTH), None),
                _dots_table(dots, chosen=any(dot.is_chosen for dot in dots)),
            )
        )
    return parts


def _pruned(dot: Dot) -> list[Child]:
    left = "" if dot.nonzero is None else f"{100 * dot.nonzero:.1f} % of the weights are left."
    before, after = _percent(dot.accuracy_float), _percent(dot.accuracy)
    moved = f" Accuracy of the float model: {before} before, {after} after." if after else ""
    note = el("p", f"{dot.note}.", class_="muted") if dot.note else None
    return [el("p", el("strong", dot.name)), el("p", left, moved), note]


def _charts(dots: Sequence[Dot], axes: Sequence[Axis], anchor: float | None) -> Html | None:
    found = [chart for axis in axes if (chart := scatter(dots, axis, anchor=anchor)) is not None]
    if not found:
        return None
    return el("div", [el("div", one, class_="card") for one in found], class_="charts")


def _dots_table(dots: Sequence[Dot], *, chosen: bool = False) -> Html:
    """The columns that any of them has."""
    columns: list[tuple[str, list[Child]]] = [
        ("accuracy", [_share(dot.accuracy) for dot in dots]),
        ("float", [_share(dot.accuracy_float) for dot in dots]),
        ("agreement", [_share(dot.agreement) for dot in dots]),
        ("SQNR", [_db(dot.sqnr_db) for dot in dots]),
        ("loss, nats", ["" if d.loss is None else f"{d.loss:.4f}" for d in dots]),
        ("weights left", ["" if d.nonzero is None else f"{100 * d.nonzero:.1f} %" for d in dots]),
        ("size, kB", [_number(dot.size, 1000) for dot in dots]),
        ("compressed, kB", [_number(dot.size_packed, 1000) for dot in dots]),
        ("p50, µs", [_number(dot.latency_us, 1) for dot in dots]),
        ("p95, µs", [_number(dot.p95_us, 1) for dot in dots]),
        ("load, ms", [_number(dot.load_ms, 1) for dot in dots]),
        ("memory, MiB", [_number(dot.ram_mib, 1) for dot in dots]),
    ]
    kept = [(name, cells) for name, cells in columns if any(cells)]
    rows: list[list[Child]] = [
        [
            [
                dot.name,
                el("span", " chosen", class_="good") if chosen and dot.is_chosen else None,
                el("div", dot.note, class_="muted") if dot.note else None,
            ],
            *(el("td", cells[i] or "-", class_="n") for _, cells in kept),
        ]
        for i, dot in enumerate(dots)
    ]
    return table(("", *(f"#{name}" for name, _ in kept)), rows)


def _float_of(dot: Dot, dots: Sequence[Dot]) -> Dot | None:
    name = f"{dot.name.partition('-')[0]}-float32"
    return next((one for one in dots if one.name == name and one is not dot), None)


def _against(what: str, value: float | None, base: float | None) -> str:
    if value is None:
        return ""
    told = f"{_figure(value / 1000)} kB" if what == "size" else f"{_figure(value)} µs"
    return f"{what} {told}, {value / base:.2f} of float" if base else f"{what} {told}"


def _share(told: Interval | None) -> Child:
    if told is None:
        return ""
    if told.low is None or told.high is None:
        return _percent(told)
    return [_percent(told), el("small", f"{100 * told.low:.1f} to {100 * told.high:.1f}")]


def _percent(told: Interval | None) -> str:
    return "" if told is None else f"{100 * told.value:.2f} %"


def _db(value: float | None) -> str:
    if value is None:
        return ""
    return "exact" if value >= EXACT_DB else f"{value:.1f} dB"


def _number(value: float | None, by: float) -> str:
    return "" if value is None else _figure(value / by)


def _figure(value: float) -> str:
    """One decimal where it is below a hundred."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
