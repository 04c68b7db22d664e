"""A series as a small inline SVG: no script, no library, scaled by the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

_WIDTH: Final = 240
_HEIGHT: Final = 48
_PAD: Final = 3


def sparkline(values: Sequence[float], *, label: str, low: float | None = None) -> Markup:
    """An SVG line through the values, oldest left; `low` fixes the bottom of the scale."""
    if len(values) < 2:
        return Markup('<span class="muted">not enough samples yet</span>')
    bottom = min(values) if low is None else min(low, *values)
    span = (max(values) - bottom) or 1.0
    step = (_WIDTH - 2 * _PAD) / (len(values) - 1)
    points = [
        (
            _PAD + index * step,
            _HEIGHT - _PAD - (value - bottom) / span * (_HEIGHT - 2 * _PAD),
        )
        for index, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{_PAD},{_HEIGHT} {line} {_WIDTH - _PAD},{_HEIGHT}"
    x, y = points[-1]
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" '
        'aria-label="{label}"><polygon points="{area}"/><polyline points="{line}"/>'
        '<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    ).format(w=_WIDTH, h=_HEIGHT, label=label, area=area, line=line, x=x, y=y)
