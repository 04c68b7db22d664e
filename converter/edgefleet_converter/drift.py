"""The drift reference of a variant: histograms of what clients send and get [bundle-11]. Pure.

Edges are quantiles, rounded to a thousandth of the range, and a bin that fewer than `least`
examples have a part in is joined to the smaller of its neighbours: no edge and no count tells of a
single example. Scores that are probabilities have fixed edges to begin with, closer where
confidence is high.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.drift_reference import (
    MAX_BINS,
    MAX_DISTRIBUTIONS,
    Distribution,
    Kind,
    Reference,
)
from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.recipe_drift import Drift
from edgefleet_processing.drift import Numbers, flat, values

MAX_COLUMNS: Final = 16
"""Tables of more columns are counted as a whole."""
_TOP: Final = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_ENTROPY: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
_STEPS: Final = 1000
_ROUNDED: Final = 0.05


def refer(
    inputs: Sequence[TensorSpec],
    taken: Arrays,
    outputs: Sequence[TensorSpec],
    given: Arrays,
    *,
    labels: tuple[str, ...],
    wish: Drift,
    calls: bool = False,
) -> Reference | None:
    """The reference of what went in and came out; None where there are too few examples.

    Args:
        inputs: what clients send.
        taken: the same for all held-out examples, each [N, …].
        outputs: what clients get.
        given: likewise.
        labels: class names, in their order.
        wish: of the recipe.
        calls: an example is a whole call, with the model's own batch axis.
    """
    if calls:
        taken, given = tuple(map(_rows_of_calls, taken)), tuple(map(_rows_of_calls, given))
    examples = len(taken[0])
    if not wish.enabled or examples < 2 * wish.least_examples:
        return None
    into = [
        one
        for spec, array in zip(inputs, taken, strict=True)
        for one in _of_input(spec.name, array, wish)
    ]
    out = [
        one
        for spec, array in zip(outputs, given, strict=True)
        for one in _of_output(spec.name, array, labels, wish)
    ]
    out = out[: MAX_DISTRIBUTIONS // 2]
    into = into[: MAX_DISTRIBUTIONS - len(out)]
    if not into and not out:
        return None
    return Reference(examples, wish.least_examples, tuple(into), tuple(out))


def _rows_of_calls(array: Array) -> Array:
    """Calls of [T, batch, …] as rows [T x batch, …]; calls of scalars are rows already."""
    return array.reshape(-1, *array.shape[2:]) if array.ndim > 1 else array


def _of_input(name: str, array: Array, wish: Drift) -> list[Distribution]:
    rows = flat(array)
    if array.dtype.kind in "OUS":
        return _histogram(name, Kind.LENGTH, rows, wish)
    if array.ndim == 2 and array.shape[1] <= MAX_COLUMNS:
        return [
            one
            for column in range(array.shape[1])
            for one in _histogram(name, Kind.NUMBER, rows, wish, column)
        ]
    return _histogram(name, Kind.NUMBER, rows, wish)


def _of_output(name: str, array: Array, labels: tuple[str, ...], wish: Drift) -> list[Distribution]:
    rows = flat(array)
    kind, width = array.dtype.kind, rows.shape[1]
    if kind in "OUS":
        places = {text: i for i, text in enumerate(labels)}
        return _classes(name, rows, places, wish) if labels else []
    if kind == "b" or (kind in "iu" and array.dtype.itemsize > 2):
        return _classes(name, rows, {}, wish)
    chances = _are_chances(array)
    if array.ndim == 2 and (chances or 1 < width == len(labels)):
        found = _classes(name, rows, {}, wish)
        found += _histogram(name, Kind.TOP, rows, wish, edges=_TOP if chances else ())
        if chances:
            found += _histogram(name, Kind.ENTROPY, rows, wish, edges=_ENTROPY)
        return found
    return _of_input(name, array, wish)


def _are_chances(array: Array) -> bool:
    """Whether rows of more than one number are probabilities, as far as 8 bits give them."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind != "f":
        return False
    numbers = array.astype(np.float64)
    return bool((numbers >= 0).all() and (np.abs(numbers.sum(axis=1) - 1) < _ROUNDED).all())


def _classes(name: str, rows: Array, places: Mapping[str, int], wish: Drift) -> list[Distribution]:
    """The share of each class that enough examples have; of the rest together."""
    found = values(rows, Kind.CLASS, -1, places).reshape(-1)
    known, sizes = np.unique(found[found >= 0].astype(np.int64), return_counts=True)
    order = np.lexsort((known, -sizes))[: MAX_BINS - 1]
    kept = [(int(known[i]), int(sizes[i])) for i in order if sizes[i] >= wish.least_examples]
    others = len(found) - sum(n for _, n in kept)
    while kept and 0 < others < wish.least_examples:
        others += kept.pop()[1]
    if not kept:
        return []
    kept.sort()
    counts = (*(n for _, n in kept), others)
    return [Distribution(name, Kind.CLASS, counts, classes=tuple(place for place, _ in kept))]


def _histogram(
    name: str,
    kind: Kind,
    rows: Array,
    wish: Drift,
    column: int = -1,
    edges: Sequence[float] = (),
) -> list[Distribution]:
    found = values(rows, kind, column, {})
    if not np.isfinite(found).all() or not found.size:
        return []
    least = wish.least_examples
    low, high = _ends(found, least)
    if not edges:
        edges = _quantiles(found, min(wish.bins, len(found) // least), low, high)
    edges, counts = _joined(found, list(edges), least)
    if len(counts) < 2:
        return []
    return [
        Distribution(
            name,
            kind,
            counts,
            column=column,
            edges=tuple(edges),
            zeros=_short(float((found == 0).mean())),
            mean=_short(float(found.mean())),
            deviation=_short(float(found.std())),
            low=low,
            high=high,
        )
    ]


def _ends(found: Numbers, least: int) -> tuple[float, float]:
    """Beyond which values of `least` examples lie, rounded."""
    lows, highs = np.sort(found.min(axis=1)), np.sort(found.max(axis=1))
    low, high = float(lows[least - 1]), float(highs[-least])
    step = _step(abs(high - low) or abs(low))
    return _round(low, step), _round(high, step)


def _quantiles(found: Numbers, bins: int, low: float, high: float) -> list[float]:
    """Edges between equal shares; of values that are nearly all one, edges around that one."""
    step = _step(abs(high - low) or abs(low))
    inner = np.quantile(found, np.arange(1, bins) / bins)
    edges = sorted({_round(float(edge), step) for edge in inner})
    if len(edges) == 1:
        edges = [edges[0] - step, edges[0]]
    return edges


def _joined(found: Numbers, edges: list[float], least: int) -> tuple[list[float], tuple[int, ...]]:
    """Edges and counts of bins that hold nothing, or something of `least` examples."""
    places = np.searchsorted(np.asarray(edges), found, side="left")
    size = len(edges) + 1
    counts = np.bincount(places.reshape(-1), minlength=size).tolist()
    parts: list[NDArray[np.bool_]] = [(places == i).any(axis=1) for i in range(size)]
    while len(edges) > 1:
        few = [i for i, part in enumerate(parts) if 0 < int(part.sum()) < least]
        if not few:
            break
        at = few[0]
        near = [i for i in (at - 1, at + 1) if 0 <= i < len(parts)]
        other = min(near, key=lambda i: (counts[i] == 0, counts[i]))
        left = min(at, other)
        counts[left : left + 2] = [counts[left] + counts[left + 1]]
        parts[left : left + 2] = [parts[left] | parts[left + 1]]
        del edges[left]
    if any(0 < int(part.sum()) < least for part in parts):
        return [], ()
    return edges, tuple(counts)


def _step(span: float) -> float:
    """A power of ten, at most a thousandth of the span and at least a ten thousandth."""
    return 10.0 ** math.floor(math.log10((span or 1.0) / _STEPS))


def _round(value: float, step: float) -> float:
    return _short(round(value / step) * step)


def _short(value: float) -> float:
    """Six digits: more would differ from one processor to the next."""
    return float(f"{value:.6g}")
