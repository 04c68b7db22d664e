"""Charts as inline SVG: dots with a Pareto front, bars, histograms; coloured by the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet_converter.metrics import EXACT_DB
from edgefleet_converter.page.markup import Child, Html, el
from edgefleet_converter.page.scales import Scale, pareto, scale_of
from edgefleet_converter.page.told import Dot, Histogram, Layer

_W: Final = 460.0
_H: Final = 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 14.0, 40.0
_LETTER: Final = 6.3
"""Pixels of a character of a label, about."""
_LINE: Final = 13.0
_MAX_LABELS: Final = 14


@dataclass(frozen=True, slots=True)
class Axis:
    """What a dot has along an axis, in what unit it is written, and what it is divided by."""

    name: str
    unit: str
    value: Callable[[Dot], float | None]
    least: float = 0.0


SIZE: Final = Axis("size", "kB", lambda dot: None if dot.size is None else dot.size / 1000)
PACKED: Final = Axis(
    "compressed", "kB", lambda dot: None if dot.size_packed is None else dot.size_packed / 1000
)
LATENCY: Final = Axis("latency, median", "µs", lambda dot: dot.latency_us)
STRENGTH: Final = Axis("lambda", "", lambda dot: dot.strength)


def scatter(dots: Sequence[Dot], axis: Axis, *, anchor: float | None = None) -> Html | None:
    """Accuracy over an axis, or SQNR where accuracy tells nothing; None with less than two dots.

    The front joins what nothing else beats. `anchor` is the accuracy of the float model.
    """
    is_share = not _needs_sqnr(dots)
    points = [
        (dot, x, y)
        for dot in sorted(dots, key=lambda dot: dot.is_chosen)  # which is drawn over the others
        if (x := axis.value(dot)) is not None and (y := _height(dot, is_share)) is not None
    ]
    if len(points) < 2:
        return None
    heights = [y for _, _, y in points]
    has_whiskers = is_share and len(points) <= _MAX_LABELS
    for dot, _, _ in points:
        if has_whiskers and dot.accuracy is not None:
            heights += [100 * v for v in (dot.accuracy.low, dot.accuracy.high) if v is not None]
    if anchor is not None and is_share:
        heights.append(100 * anchor)
    across = scale_of([x for _, x, _ in points], start=_LEFT, stop=_W - _RIGHT, least=axis.least)
    up = scale_of(
        heights,
        start=_H - _BOTTOM,
        stop=_TOP,
        least=0.0 if is_share else min(heights) - 5,
        most=100.0 if is_share else max(heights) + 5,
    )
    title = "accuracy, %" if is_share else "SQNR, dB"
    unit = f"{axis.name}, {axis.unit}" if axis.unit else axis.name
    label = f"{title} against {unit}: {len(points)} points"
    front = pareto([(x, y) for _, x, y in points])
    return _svg(
        label,
        _H,
        _grid(across, up),
        _line(anchor, up) if anchor is not None and is_share else None,
        _front(front, across, up),
        _labels(
            [(dot.name, across.at(x), up.at(y)) for dot, x, y in points],
            dots,
            up.at(100 * anchor) - 4 if anchor is not None and is_share else None,
        ),
        [_dot(dot, across.at(x), y, up, is_share, has_whiskers) for dot, x, y in points],
        el("text", unit, x=(_LEFT + _W - _RIGHT) / 2, y=_H - 4, text_anchor="middle"),
        el("text", title, x=_LEFT - 44, y=_TOP - 3),
    )


def bars(layers: Sequence[Layer]) -> Html:
    """SQNR of each layer, the worst first, at most forty of them."""
    worst = sorted(layers, key=lambda layer: layer.sqnr_db)[:40]
    height = 18.0 * len(worst) + 8
    top = max(max(layer.sqnr_db for layer in worst), 1.0)
    scale = Scale(min(0.0, worst[0].sqnr_db), top, 170, _W - 50)
    rows: list[Child] = []
    for i, layer in enumerate(worst):
        y = 18.0 * i + 4
        name = _short(layer.name, 26)
        rows += [
            el("text", name, el("title", layer.name), x=164, y=y + 12, text_anchor="end"),
            el(
                "rect",
                x=170,
                y=y + 2,
                width=max(1.0, scale.at(layer.sqnr_db) - 170),
                height=12,
                class_="fill",
            ),
            el("text", f"{layer.sqnr_db:.1f}", x=scale.at(layer.sqnr_db) + 4, y=y + 12),
        ]
    return _svg(f"SQNR by layer, dB: {len(worst)} of {len(layers)}", height, rows)


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
            height=60 * count / top,
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
    return _svg(f"values of {told.name}", height, rows, width=width)


def _needs_sqnr(dots: Sequence[Dot]) -> bool:
    """Whether no accuracy is known, or all are one, and SQNR tells the dots apart."""
    shares = {dot.accuracy.value for dot in dots if dot.accuracy is not None}
    noise = {dot.sqnr_db for dot in dots if dot.sqnr_db is not None}
    return not shares or (len(shares) == 1 and len(noise) > 1 and max(noise) < EXACT_DB)


def _height(dot: Dot, is_share: bool) -> float | None:
    if not is_share:
        return dot.sqnr_db
    return None if dot.accuracy is None else 100 * dot.accuracy.value


def _grid(across: Scale, up: Scale) -> list[Child]:
    found: list[Child] = []
    for value in up.ticks():
        y = up.at(value)
        found.append(el("line", x1=_LEFT, x2=_W - _RIGHT, y1=y, y2=y, class_="grid"))
        found.append(el("text", f"{value:g}", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    for value in across.ticks():
        x = across.at(value)
        found.append(el("line", x1=x, x2=x, y1=_TOP, y2=_H - _BOTTOM, class_="grid"))
        found.append(el("text", f"{value:g}", x=x, y=_H - _BOTTOM + 15, text_anchor="middle"))
    return found


def _line(anchor: float, up: Scale) -> list[Child]:
    y = up.at(100 * anchor)
    return [
        el("line", x1=_LEFT, x2=_W - _RIGHT, y1=y, y2=y, class_="anchor"),
        el("text", "float model", x=_W - _RIGHT, y=y - 4, text_anchor="end", class_="quiet"),
    ]


def _front(front: list[tuple[float, float]], across: Scale, up: Scale) -> Html:
    """Steps: between two points of the front, the left one is what can be had."""
    path = ""
    for i, (x, y) in enumerate(front):
        at = across.at(x), up.at(y)
        path += f"M{at[0]:.1f} {at[1]:.1f}" if i == 0 else f"H{at[0]:.1f}V{at[1]:.1f}"
    return el("path", d=path, class_="front")


def _dot(
    dot: Dot, x: float, value: float, up: Scale, is_share: bool, has_whiskers: bool
) -> list[Child]:
    y = up.at(value)
    told = dot.accuracy if has_whiskers else None
    found: list[Child] = []
    if told is not None and told.low is not None and told.high is not None:
        ends = up.at(100 * told.low), up.at(100 * told.high)
        found.append(el("line", x1=x, x2=x, y1=ends[0], y2=ends[1], class_="whisker"))
    kind = "chosen" if dot.is_chosen else "float" if dot.name.endswith("-float32") else "dot"
    unit = "%" if is_share else "dB"
    found.append(
        el(
            "circle",
            el("title", f"{dot.name}: {value:.2f} {unit}"),
            cx=x,
            cy=y,
            r=5.5 if dot.is_chosen else 4.5,
            class_=kind,
        )
    )
    return found


def _labels(
    spots: list[tuple[str, float, float]], dots: Sequence[Dot], reserved: float | None
) -> list[Child]:
    """Names beside dots, where nothing else stands; of many dots the chosen ones' alone."""
    taken = [(x - 5, x + 5, y + 4) for _, x, y in spots]
    taken.append((_LEFT - 44, _LEFT + 30, _TOP - 3))  # the title of the axis
    if reserved is not None:
        taken.append((_W - _RIGHT - 70, _W - _RIGHT, reserved))
    if len(spots) > _MAX_LABELS:
        chosen = {dot.name for dot in dots if dot.is_chosen}
        spots = [spot for spot in spots if spot[0] in chosen][:_MAX_LABELS]
    found: list[Child] = []
    for name, x, y in sorted(spots, key=lambda spot: (spot[2], spot[1])):
        shown = _short(name, 24)
        width = _LETTER * len(shown)
        places = [
            (left, y + down)
            for down in (-6, 16, 4, -19, 29)
            for left in (x + 8, x - 8 - width)
            if left >= _LEFT and left + width <= _W
        ]
        free = (place for place in places if _is_free(place, width, taken))
        left, line = next(free, (x + 8, y - 6))
        taken.append((left, left + width, line))
        anchor = "end" if left < x else "start"
        found.append(
            el(
                "text",
                shown,
                x=x - 8 if left < x else x + 8,
                y=line,
                text_anchor=anchor,
                class_="name",
            )
        )
    return found


def _is_free(
    place: tuple[float, float], width: float, taken: list[tuple[float, float, float]]
) -> bool:
    left, line = place
    return not any(
        left < end and begin < left + width and abs(line - at) < _LINE for begin, end, at in taken
    )


def _short(name: str, most: int) -> str:
    """A name with its middle left out, where it is longer."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"


def _svg(label: str, height: float, *children: Child, width: float = _W) -> Html:
    return el(
        "svg",
        children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        style=f"max-width:{1.3 * width:g}px",
    )
