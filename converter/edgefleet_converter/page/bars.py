"""Bars, histograms and a grid of changed decisions as inline SVG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from edgefleet_converter.page.drawing import WIDTH, drawing, shortened
from edgefleet_converter.page.markup import Child, Html, el
from edgefleet_converter.page.scales import Scale
from edgefleet_converter.page.told import Histogram, Layer, ToldFlip

_MAX_BARS: Final = 24
_MAX_CLASSES: Final = 16
_CELL: Final = 24.0


def bars(layers: Sequence[Layer]) -> Html:
    """What each layer wins, the most first, at most twenty-four of them."""
    most = sorted(layers, key=lambda layer: -layer.gain_db)[:_MAX_BARS]
    height = 18.0 * len(most) + 8
    low = min(0.0, min(layer.gain_db for layer in most))
    top = max(max(layer.gain_db for layer in most), low + 1.0)
    scale = Scale(low, top, 180, WIDTH - 50)
    zero = scale.at(0.0)
    rows: list[Child] = []
    for i, layer in enumerate(most):
        y, end = 18.0 * i + 4, scale.at(layer.gain_db)
        rows += [
            el(
                "text",
                shortened(layer.name.rstrip(";"), 26),
                el("title", layer.name),
                x=170,
                y=y + 12,
                text_anchor="end",
            ),
            el(
                "rect",
                x=min(zero, end),
                y=y + 2,
                width=max(1.0, abs(end - zero)),
                height=12,
                class_="fill",
            ),
            el("text", f"{layer.gain_db:+.1f}", x=max(zero, end) + 4, y=y + 12),
        ]
    return drawing(f"SQNR won by layer, dB: {len(most)} of {len(layers)}", height, rows)


def histogram(told: Histogram) -> Html:
    """Counts of a tensor's values; what the quantizer kept lies between the marks."""
    width, height = 220.0, 90.0
    top = max(max(told.counts, default=0.0), 1.0)
    scale = Scale(told.low, told.high, 4, width - 4)
    step = (width - 8) / max(len(told.counts), 1)
    rows: list[Child] = [
        el(
            "rect",
            x=4 + i * step,
            y=66 - 60 * count / top,
            width=max(step - 0.5, 0.4),
            height=max(60 * count / top, 0.7),
            class_="fill",
        )
        for i, count in enumerate(told.counts)
        if count
    ]
    for clip in (told.clip_low, told.clip_high):
        if clip is not None:
            x = scale.at(clip)
            rows.append(el("line", x1=x, x2=x, y1=4, y2=66, class_="anchor"))
    rows += [
        el("text", f"{told.low:.3g}", x=4, y=80),
        el("text", f"{told.high:.3g}", x=width - 4, y=80, text_anchor="end"),
    ]
    return drawing(f"values of {told.name}", height, rows, width=width)


def confusion(flips: Sequence[ToldFlip], named: Callable[[int], str]) -> Html | None:
    """Changed decisions by class, float model down, variant across; the darker, the more of them.

    At most sixteen classes, those that change most; None where there are none.
    """
    involved: Counter[int] = Counter()
    for flip in flips:
        involved.update({flip.before: flip.count, flip.after: flip.count})
    order = sorted(one for one, _ in involved.most_common(_MAX_CLASSES))
    cells: Counter[tuple[int, int]] = Counter()
    for flip in flips:
        cells[flip.before, flip.after] += flip.count
    shown = {pair: n for pair, n in cells.items() if {*pair} <= {*order} and n > 0}
    if not shown:
        return None
    top = max(shown.values())
    longest = max(len(shortened(named(one), 14)) for one in order)
    left, above = 30.0 + 6.3 * longest, 36.0 + 4.5 * longest
    rows: list[Child] = []
    for i, one in enumerate(order):
        middle = (i + 0.5) * _CELL
        name, whole = shortened(named(one), 14), el("title", named(one))
        x, y = left + middle, above + middle
        turn = f"rotate(-45 {x:.0f} {above - 6:.0f})"
        rows += [
            el("text", name, whole, x=left - 6, y=y + 4, text_anchor="end"),
            el("text", name, whole, x=x, y=above - 6, transform=turn),
            el(
                "rect",
                x=left + i * _CELL + 1,
                y=above + i * _CELL + 1,
                width=_CELL - 2,
                height=_CELL - 2,
                class_="same",
            ),
        ]
    for (before, after), n in sorted(shown.items()):
        if before == after:
            continue
        x = left + order.index(after) * _CELL
        y = above + order.index(before) * _CELL
        told = f"{named(before)} became {named(after)}: {n}"
        rows += [
            el(
                "rect",
                el("title", told),
                x=x + 1,
                y=y + 1,
                width=_CELL - 2,
                height=_CELL - 2,
                class_="changed",
                fill_opacity=0.2 + 0.6 * n / top,
            ),
            el(
                "text",
                str(n),
                x=x + _CELL / 2,
                y=y + _CELL / 2 + 4,
                text_anchor="middle",
                class_="name",
            ),
        ]
    size = len(order) * _CELL
    rows.append(el("text", "float model ↓, variant →", x=2, y=14))
    return drawing(
        f"changed decisions of {len(order)} classes",
        above + size + 6,
        rows,
        width=max(left + size + 50, 300.0),
    )
