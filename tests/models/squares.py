"""One copy on the device against the plain runtime: a row of the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgefleet_agent.runtime.engine import Tensors
from edgefleet_contract.bundle import Format
from tests.models.players import Refused, plain, served
from tests.models.subject import Copy, Played, Subject


@dataclass(frozen=True, slots=True)
class Row:
    """`cases` answers were compared; `difference` is the largest, infinite where shapes differ.

    An empty square has no cases, and says why in `note`.
    """

    number: int
    name: str
    format: str
    note: str
    cases: int = 0
    difference: float = 0.0
    scores: tuple[tuple[str, int, int, float], ...] = ()
    is_good: bool = True


def rows_of(subject: Subject) -> list[Row]:
    """The rows of all formats, empty squares last."""
    rows = [row_of(subject, copy) for copy in subject.copies]
    there = {copy.format for copy in subject.copies}
    empty = [kind for kind in Format if kind not in there]
    return rows + [Row(subject.number, subject.name, kind, subject.empty[kind]) for kind in empty]


def row_of(subject: Subject, copy: Copy) -> Row:
    """Play the same to both."""
    expected = subject.play(plain(copy), copy)
    try:
        with served(copy) as device:
            found = subject.play(device, copy)
    except Refused as refusal:
        note = f"{copy.origin}; refused: {refusal}"
        return Row(subject.number, subject.name, copy.format, note, is_good=False)
    worst = difference(expected, found)
    return Row(
        number=subject.number,
        name=subject.name,
        format=copy.format,
        note=copy.origin,
        cases=len(expected.answers),
        difference=worst,
        scores=tuple((s.what, s.right, s.of, s.minimum) for s in found.scores),
        is_good=worst == 0 and all(score.is_good for score in found.scores),
    )


def difference(expected: Played, found: Played) -> float:
    """The largest between any two answers; 0 only where all bytes are equal."""
    if len(expected.answers) != len(found.answers):
        return float("inf")
    pairs = zip(expected.answers, found.answers, strict=True)
    return max((_difference(left, right) for left, right in pairs), default=0.0)


def _difference(left: Tensors, right: Tensors) -> float:
    if left.keys() != right.keys():
        return float("inf")
    worst = 0.0
    for name, array in left.items():
        other = right[name]
        if array.shape != other.shape or array.dtype != other.dtype:
            return float("inf")
        if array.tobytes() != other.tobytes():
            gap = np.abs(array.astype(np.float64) - other.astype(np.float64)).max()
            worst = max(worst, float(gap), 1e-300)  # other bytes, the same number: -0.0
    return worst
