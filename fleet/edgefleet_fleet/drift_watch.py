"""From the windows that devices count to what gates read: distributions of outputs. No I/O.

Of a window only the outputs count: what clients send is no fault of a model. The formulas are the
contract's (`edgefleet_contract.drift`), as on the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from edgefleet_contract.drift import Window, has_drifted, merge, minimum_sample
from edgefleet_contract.drift_reference import Distribution, Kind
from edgefleet_contract.drift_reference import Reference as Built
from edgefleet_fleet.model_gates import Reference

_BINS: Final = 20
"""Equal bins of confidence over [0, 1]."""


def usual(built: Built) -> Reference:
    """How a model answered when it was built, as gates that compare need it."""
    at, counts = answers(built), [one.counts for one in built.distributions]
    return Reference(
        outputs=counts[at] if at is not None else (), confidence=_confidence(built, counts)
    )


def histograms(built: Built, window: Window) -> Reference:
    """The same of what a device counted; empty where the window has other bins."""
    if not window.fits(built):
        return Reference()
    at, counts = answers(built), [one.bins for one in window.counted]
    return Reference(
        outputs=counts[at] if at is not None else (), confidence=_confidence(built, counts)
    )


def answers(built: Built) -> int | None:
    """Which distribution says how a model answers: its classes, else an output that has one value
    for each example; None where it has neither."""
    first = len(built.inputs)
    ones = [
        first + place
        for place, found in enumerate(built.outputs)
        if sum(found.counts) <= built.examples
    ]
    classes = [place for place in ones if built.distributions[place].kind is Kind.CLASS]
    return next(iter(classes or ones), None)


def same_answers(one: Built, other: Built) -> bool:
    """Whether the answers of two variants are counted in the same bins, so that they add up."""
    mine, its = answers(one), answers(other)
    if mine is None or its is None:
        return False
    return _bounds(one.distributions[mine]) == _bounds(other.distributions[its])


def is_enough(built: Built, window: Window) -> bool:
    """Whether a device answered often enough to see a major drift of any of the outputs."""
    needed = [
        found
        for one in built.outputs
        if (found := minimum_sample(len(one.counts), built.examples)) is not None
    ]
    return bool(needed) and window.examples >= max(needed)


def outputs_drifted(built: Built, window: Window) -> bool:
    """Whether what a device answers is far from what it was when the model was built."""
    if not built.outputs or not window.fits(built):
        return False
    outputs = dataclasses.replace(built, inputs=())
    counted = window.counted[len(built.inputs) :]
    return has_drifted(outputs, dataclasses.replace(window, counted=counted))


def merged(windows: Iterable[Window]) -> Window | None:
    """All windows that have the reference of the last one, as one; None where there is none."""
    found: Window | None = None
    for window in windows:
        is_same = found is not None and _can_be_added(found, window)
        found = merge(found, window) if is_same and found is not None else window
    return found


def _can_be_added(one: Window, other: Window) -> bool:
    widths = [[len(found.bins) for found in window.counted] for window in (one, other)]
    return one.reference == other.reference and widths[0] == widths[1]


def _confidence(built: Built, counts: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Counts of the largest score in equal bins, each bin of the reference at its middle; empty
    where scores are no shares."""
    for place, one in enumerate(built.distributions):
        is_score = place >= len(built.inputs) and one.kind is Kind.TOP
        if not is_score or one.edges[0] < 0 or one.edges[-1] > 1:
            continue
        bounds = (0.0, *one.edges, 1.0)
        found = [0] * _BINS
        for (low, high), count in zip(pairwise(bounds), counts[place], strict=True):
            found[min(_BINS - 1, int((low + high) / 2 * _BINS))] += count
        return tuple(found)
    return ()


def _bounds(one: Distribution) -> tuple[object, ...]:
    return one.tensor, one.kind, one.column, one.edges, one.classes
