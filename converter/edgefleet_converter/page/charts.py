"""Dots with a Pareto front as inline SVG, coloured by the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet_converter.metrics import EXACT_DB
from edgefleet_converter.page.drawing import drawing, shortened
from edgefleet_converter.page.markup import Child, Html, el
from edgefleet_converter.page.scales import Scale, pareto, scale_of
from edgefleet_converter.page.told import Dot

_W: Final = 460.0
_H: Final = 292.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 26.0, 40.0
_LETTER: Final = 6.3
"""Pixels of a character of a label, about."""
_LINE: Final = 13.0
_MAX_LABELS: Final = 14
_NAME: Final = 62.0  # pixels of "float model"


@dataclass(frozen=True, slots=True)
class Axis:
    """What a dot has along an axis, and in what unit; whether less of it is better, at a front."""

    name: str
    unit: str
    value: Callable[[Dot], float | None]
    least: float = 0.0
    has_front: bool = True


SIZE: Final = Axis("size", "kB", lambda dot: None if dot.size is None else dot.size / 1000)
PACKED: Final = Axis(
    "compressed", "kB", lambda dot: None if dot.size_packed is None else dot.size_packed / 1000
)
LATENCY: Final = Axis("latency, median", "µs", lambda dot: dot.latency_us)
STRENGTH: Final = Axis("lambda", "", lambda dot: dot.strength or None, has_front=False)
ZEROS: Final = Axis(
    "weights that are zero",
    "%",
    lambda dot: None if dot.nonzero is None else 100 * (1 - dot.nonzero),
    has_front=False,
)


def scatter(dots: Sequence[Dot], axis: Axis, *, anchor: float | None = None) -> Html | None:
    """Accuracy over an axis, or SQNR where accuracy tells nothing; None with less than two dots.

    The front joins what nothing else beats. `anchor` is the accuracy of the float model.
    """
    is_share = not is_told_by_noise(dots)
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
    place = None
    if anchor is not None and is_share:
        place = _place_of_line([(across.at(x), up.at(y)) for _, x, y in points], anchor, up)
    front = pareto([(x, y) for _, x, y in points])
    return drawing(
        label,
        _H,
        _grid(across, up),
        _line(anchor, up, place) if anchor is not None and place is not None else None,
        _front(front, across, up) if axis.has_front else None,
        _labels(
            [(dot.name, across.at(x), up.at(y)) for dot, x, y in points],
            dots,
            place,
        ),
        [_dot(dot, across.at(x), y, up, is_share, has_whiskers) for dot, x, y in points],
        el("text", unit, x=(_LEFT + _W - _RIGHT) / 2, y=_H - 4, text_anchor="middle"),
        el("text", title, x=_LEFT - 44, y=12),
    )


def is_told_by_noise(dots: Sequence[Dot]) -> bool:
    """Whether no accuracy is known, or all are one, and SQNR tells the dots apart.

    Float models have no noise to show: they are left out then, where three others remain.
    """
    shares = {dot.accuracy.value for dot in dots if dot.accuracy is not None}
    noise = {dot.sqnr_db for dot in dots if dot.sqnr_db is not None}
    noisy = {one for one in noise if one < EXACT_DB}
    return not shares or (len(shares) == 1 and len(noisy) > (1 if noisy == noise else 2))


def _height(dot: Dot, is_share: bool) -> float | None:
    if not is_share:
        return dot.sqnr_db if dot.sqnr_db is not None and dot.sqnr_db < EXACT_DB else None
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


def _line(anchor: float, up: Scale, place: tuple[float, float]) -> list[Child]:
    y = up.at(100 * anchor)
    return [
        el("line", x1=_LEFT, x2=_W - _RIGHT, y1=y, y2=y, class_="anchor"),
        el("text", "float model", x=place[0], y=place[1], class_="quiet"),
    ]


def _place_of_line(
    spots: list[tuple[float, float]], anchor: float, up: Scale
) -> tuple[float, float]:
    """Where the name of the float line begins, with the fewest dots under it."""
    line = up.at(100 * anchor)
    begins = (_W - _RIGHT - _NAME, _LEFT + 4, (_LEFT + _W - _RIGHT - _NAME) / 2)
    places = [(begin, line + down) for down in (-4, 12) for begin in begins]

    def dots_under(place: tuple[float, float]) -> int:
        begin, base = place
        return sum(
            begin - 6 < x < begin + _NAME + 6 and abs(y - base + 4) < _LINE - 2 for x, y in spots
        )

    return min(places, key=dots_under)


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
    if dot.is_anchor:
        path = f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"
        told_of = el("title", f"{dot.name}: {value:.2f} {unit}")
        return [*found, el("path", told_of, d=path, class_="peer")]
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
    spots: list[tuple[str, float, float]], dots: Sequence[Dot], reserved: tuple[float, float] | None
) -> list[Child]:
    """Names beside dots, where nothing else stands; of many dots the chosen ones' alone."""
    taken = [(x - 5, x + 5, y + 4) for _, x, y in spots]
    taken.append((_LEFT - 44, _LEFT + 30, 12))  # the title of the axis
    if reserved is not None:
        taken.append((reserved[0], reserved[0] + _NAME, reserved[1]))
    if len(spots) > _MAX_LABELS:
        chosen = {dot.name for dot in dots if dot.is_chosen}
        spots = [spot for spot in spots if spot[0] in chosen][:_MAX_LABELS]
    found: list[Child] = []
    for name, x, y in sorted(spots, key=lambda spot: (spot[2], spot[1])):
        shown = shortened(name, 26)
        width = _LETTER * len(shown)
        places = [
            (left, y + down)
            for down in (-6, 16, 4, -19, 29, -32, 42)
            for left in (x + 8, x - 8 - width)
            if left >= _LEFT and left + width <= _W
        ]
        place = next((place for place in places if _is_free(place, width, taken)), None)
        if place is None:
            continue  # the dot has its name when pointed at, and the table has all of them
        left, line = place
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
