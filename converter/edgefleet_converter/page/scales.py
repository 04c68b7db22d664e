"""Axes: where a value stands, and which round values are written beside. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_LOG_FROM: Final = 20.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` laid over pixels from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; beyond an end it stays there."""
        if self.is_log:
            part = (math.log(max(value, self.low)) - math.log(self.low)) / (
                math.log(self.high) - math.log(self.low)
            )
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, part)) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Three to some ten round values on it."""
        return _log_ticks(self) if self.is_log else _even_ticks(self.low, self.high)


def scale_of(
    values: Sequence[float], *, start: float, stop: float, least: float, most: float = math.inf
) -> Scale:
    """A scale that holds all of the values with some air, within `least` to `most`.

    It is logarithmic where all values are positive and the largest is many times the least.
    """
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOG_FROM and most == math.inf:
        return Scale(low / 1.3, high * 1.3, start, stop, is_log=True)
    air = 0.12 * (high - low) or max(abs(high) * 0.1, 1e-3)
    low, high = max(least, low - air), min(most, high + air)
    return Scale(low, high if high > low else low + 1e-3, start, stop)


def _even_ticks(low: float, high: float) -> list[float]:
    """
    >>> _even_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _log_ticks(scale: Scale) -> list[float]:
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    decades = last - first
    steps = (1.0, 2.0, 5.0) if decades <= 3 else (1.0,)
    powers = range(first, last + 1, math.ceil(decades / 8))
    found = [step * 10.0**power for power in powers for step in steps]
    return [value for value in found if scale.low <= value <= scale.high]


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats: less in the first and more in the second; in order.

    >>> pareto([(1, 1), (2, 3), (3, 2), (4, 4)])
    [(1, 1), (2, 3), (4, 4)]
    """
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
