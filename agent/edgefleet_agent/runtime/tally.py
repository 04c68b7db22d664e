"""Counts what a model is asked and says, in the bins of its drift reference [bundle-11].

`note` copies little and comes before an answer is sent, as a body may lie in memory that changes
hands; `settle` puts what was noted into bins and comes after. Of rows of many numbers some are
drawn by chance, of many rows in one request some rows. Nothing but counts leaves this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_contract.bundle import Digest, Variant
from edgefleet_contract.drift import Counted, Window, merge
from edgefleet_contract.drift_reference import Distribution, Kind, Reference
from edgefleet_processing.drift import count, flat, values

DRAWN: Final = 1024
"""Numbers of one row of one tensor that are looked at."""

ROWS: Final = 64
"""Rows that are noted before they are put into bins; of one request, that are looked at."""

_WHOLE: Final = frozenset({Kind.CLASS, Kind.TOP, Kind.ENTROPY})
"""What is read out of a whole row."""

_COLUMNS: Final = 4096


class Tally:
    """Counts for one model.

    Args:
        reference: whose bins they are.
        digest: of its file.
        labels: class names, in their order.
    """

    def __init__(self, reference: Reference, digest: Digest, labels: Sequence[str]) -> None:
        self._reference, self._digest = reference, digest
        self._places = {text: i for i, text in enumerate(labels)}
        self._inputs = _by_tensor(reference.inputs)
        self._outputs = _by_tensor(reference.outputs)
        self._noted: dict[tuple[bool, str], list[Array]] = {}
        self._rows = 0
        self._window: Window | None = None
        self._chance = np.random.default_rng()

    @property
    def has_news(self) -> bool:
        """Whether something was counted that `take` has not given."""
        return bool(self._rows) or self._window is not None

    def note(self, feeds: Tensors, outputs: Tensors) -> None:
        """Remember one inference."""
        found: dict[tuple[bool, str], Array] = {}
        for is_output, wanted, tensors in (
            (False, self._inputs, feeds),
            (True, self._outputs, outputs),
        ):
            for name, distributions in wanted.items():
                if name in tensors:
                    array = self._drawn(tensors[name], distributions)
                    if array.size:
                        found[is_output, name] = array
        rows = max((len(array) for array in found.values()), default=0)
        if not rows:
            return
        self._rows += rows
        for key, array in found.items():
            self._noted.setdefault(key, []).append(array)

    def settle(self) -> None:
        """Put what was noted into bins, once there is enough to be worth it."""
        if self._rows >= ROWS:
            self._count()

    def take(self) -> Window | None:
        """What was counted since this was asked last; None where that is nothing."""
        if self._rows:
            self._count()
        window, self._window = self._window, None
        return window

    def _count(self) -> None:
        counted = (
            *self._counted(self._inputs, self._reference.inputs, is_output=False),
            *self._counted(self._outputs, self._reference.outputs, is_output=True),
        )
        window = Window(self._digest, self._rows, counted)
        self._window = window if self._window is None else merge(self._window, window)
        self._noted, self._rows = {}, 0

    def _counted(
        self,
        wanted: Mapping[str, Sequence[Distribution]],
        order: Sequence[Distribution],
        *,
        is_output: bool,
    ) -> list[Counted]:
        found: dict[int, Counted] = {}
        for name, distributions in wanted.items():
            parts = self._noted.get((is_output, name), [])
            for width in sorted({part.shape[1] for part in parts}):
                rows = np.concatenate([part for part in parts if part.shape[1] == width])
                for one in distributions:
                    if one.column < width:
                        numbers = values(rows, one.kind, one.column, self._places)
                        new = count(one, numbers)
                        found[id(one)] = _sum(found[id(one)], new) if id(one) in found else new
        return [found.get(id(one), Counted((0,) * len(one.counts))) for one in order]

    def _drawn(self, array: Array, distributions: Sequence[Distribution]) -> Array:
        """Rows of a tensor, copied: some of them and of their numbers, where there are many."""
        rows = flat(array)
        if len(rows) > ROWS:
            rows = rows[self._chance.integers(0, len(rows), ROWS)]
        width = rows.shape[1] if len(rows) else 0
        if any(one.kind in _WHOLE or one.column >= 0 for one in distributions):
            return rows.copy() if width <= _COLUMNS else rows[:0]
        if width > DRAWN:
            return rows[:, self._chance.integers(0, width, DRAWN)]
        return rows.copy()


def misfit(reference: Reference, variant: Variant) -> str:
    """What of a reference cannot be counted of a variant; empty where all can."""
    for specs, distributions in (
        (variant.public_inputs, reference.inputs),
        (variant.public_outputs, reference.outputs),
    ):
        dtypes = {spec.name: spec.dtype for spec in specs}
        for one in distributions:
            dtype = dtypes.get(one.tensor)
            if dtype is None or (
                one.kind is not Kind.CLASS and (dtype == "string") != (one.kind is Kind.LENGTH)
            ):
                return f"{one.kind} of {one.tensor[:80]!r}, which is {dtype or 'no tensor of it'}"
    return ""


def _by_tensor(distributions: Sequence[Distribution]) -> dict[str, list[Distribution]]:
    found: dict[str, list[Distribution]] = {}
    for one in distributions:
        found.setdefault(one.tensor, []).append(one)
    return found


def _sum(first: Counted, second: Counted) -> Counted:
    bins = tuple(a + b for a, b in zip(first.bins, second.bins, strict=True))
    return Counted(bins, first.zeros + second.zeros, first.missing + second.missing)
