"""The parts of the page that look into a model: layers, ranges, decisions that changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgefleet_converter.page.bars import bars, confusion, histogram
from edgefleet_converter.page.markup import Child, el
from edgefleet_converter.page.parts import table, titled
from edgefleet_converter.page.told import Dot, Histogram, Told, ToldFlip

_MAX_FLIPS: Final = 30


def layers(told: Told) -> Child:
    """Which layers suffer most from 8 bits."""
    if not told.layers:
        return None
    cards = [
        el("div", el("small", owner) if owner else None, bars(found), class_="card")
        for owner, found in told.layers
    ]
    note = "What it wins to leave one layer in float32: dB of SQNR over all in int8."
    return titled(
        "Sensitivity by layer",
        el("div", cards, class_="charts"),
        el("p", note, class_="muted"),
    )


def histograms(told: Told) -> Child:
    """What the calibration data looked like inside of the model."""
    if not told.histograms:
        return None
    cards = [
        el(
            "div",
            el("small", one.name, class_="long"),
            histogram(one),
            el("small", _clipped(one)),
            class_="card small",
        )
        for one in told.histograms[:60]
    ]
    note = "Values by calibration, of the most clipped tensors; dashed: the range that int8 keeps."
    return titled("Calibration", el("div", cards, class_="cards"), el("p", note, class_="muted"))


def _clipped(one: Histogram) -> str:
    if one.clipped is not None:
        return f"{100 * one.clipped:.3g} % outside"
    return "" if one.at_end is None else f"{100 * one.at_end:.3g} % at the end"


def flips(told: Told, labels: Sequence[str]) -> Child:
    """Which decisions changed between the float model and each variant."""
    found = [dot for dot in told.variants if dot.flips is not None]
    return (
        titled("Decisions that changed", [_flips(dot, labels) for dot in found]) if found else None
    )


def _flips(dot: Dot, labels: Sequence[str]) -> list[Child]:
    assert dot.flips is not None
    listed = sum(flip.count for flip in dot.flips)
    n = dot.agreement.n if dot.agreement else None
    total = round((1 - dot.agreement.value) * n) if dot.agreement and n else listed
    out_of = f" of {n}" if n else ""
    if not total:
        return [el("p", el("b", dot.name), f": none{out_of}.")]
    known = [flip for flip in dot.flips if flip.truth is not None]
    spoiled = sum(flip.count for flip in known if flip.before == flip.truth)
    mended = sum(flip.count for flip in known if flip.after == flip.truth)
    judged = f": {spoiled} from right to wrong, {mended} from wrong to right" if known else ""
    rows = [
        [
            _named(flip.before, labels),
            _named(flip.after, labels),
            "" if flip.truth is None else _named(flip.truth, labels),
            _verdict(flip),
            el("td", str(flip.count), class_="n"),
        ]
        for flip in dot.flips[:_MAX_FLIPS]
    ]
    more = len(dot.flips) - _MAX_FLIPS
    return [
        el("p", el("b", dot.name), f": {total}{out_of}{judged}."),
        _grid(dot.flips, labels),
        table(("float model", "variant", "true", "", "#n"), rows),
        el("p", f"And {more} kinds more.", class_="muted") if more > 0 else None,
    ]


def _grid(found: Sequence[ToldFlip], labels: Sequence[str]) -> Child:
    drawn = confusion(found, lambda place: _named(place, labels))
    return el("div", el("div", drawn, class_="card"), class_="charts") if drawn else None


def _verdict(flip: ToldFlip) -> Child:
    if flip.truth is None:
        return ""
    if flip.before == flip.truth:
        return el("span", "now wrong", class_="bad")
    if flip.after == flip.truth:
        return el("span", "now right", class_="good")
    return "wrong still"


def _named(place: int, labels: Sequence[str]) -> str:
    return labels[place] if 0 <= place < len(labels) else f"class {place}"
