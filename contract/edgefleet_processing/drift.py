"""What a drift reference counts, read out of tensors: the same at the desk and on a device.

`values` makes numbers of a tensor, a row for each example; `count` puts them into bins. What is
counted of a class is its place: in the labels, among the scores, or the number itself. The law is
docs/spec/bundle.md, section 11.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.drift import Counted
from edgefleet_contract.drift_reference import Distribution, Kind
from edgefleet_processing.tensors import Array

Numbers = NDArray[np.float64]


def flat(array: Array) -> Array:
    """A tensor as rows of examples, [N, M]; a scalar, or a list of them, as rows of one."""
    if array.ndim < 2:
        return array.reshape(-1, 1)
    return array.reshape(len(array), -1)


def values(rows: Array, kind: Kind, column: int, places: Mapping[str, int]) -> Numbers:
    """What is counted of rows [N, M]: [N, K] as float64; an unknown class is -1.

    Args:
        rows: see `flat`.
        kind: of the distribution.
        column: of numbers, or -1.
        places: of class names.
    """
    if kind is Kind.LENGTH:
        return np.asarray([[len(str(text)) for text in row] for row in rows.tolist()], np.float64)
    if kind is Kind.CLASS:
        return _classes(rows, places).reshape(-1, 1)
    numbers = np.asarray(rows, np.float64)
    if kind is Kind.TOP:
        return np.asarray(numbers.max(axis=1, keepdims=True), np.float64)
    if kind is Kind.ENTROPY:
        return _entropy(numbers).reshape(-1, 1)
    return numbers if column < 0 else numbers[:, column : column + 1]


def count(distribution: Distribution, found: Numbers) -> Counted:
    """Values in the bins of a distribution."""
    number = len(distribution.counts)
    if distribution.kind is Kind.CLASS:
        bins = class_bins(found, distribution.classes)
        return Counted(tuple(np.bincount(bins, minlength=number).tolist()))
    whole = found[np.isfinite(found)]
    bins = np.searchsorted(np.asarray(distribution.edges), whole, side="left")
    tallied = tuple(np.bincount(bins, minlength=number).tolist())
    return Counted(tallied, int((whole == 0).sum()), found.size - whole.size)


def class_bins(found: Numbers, classes: tuple[int, ...]) -> NDArray[np.int64]:
    """The bin of each class: its place in `classes`, or behind the last of them."""
    order = np.argsort(np.asarray(classes, np.float64), kind="stable")
    known = np.asarray(classes, np.float64)[order]
    flat_found = found.reshape(-1)
    at = np.searchsorted(known, flat_found).clip(max=len(known) - 1)
    return np.asarray(np.where(known[at] == flat_found, order[at], len(classes)), np.int64)


def _classes(rows: Array, places: Mapping[str, int]) -> Numbers:
    """The first label or whole number of a row, else the place of its largest score."""
    if rows.dtype.kind in "OUS":
        return np.asarray([places.get(str(text), -1) for text in rows[:, 0]], np.float64)
    if rows.dtype.kind == "b" or (rows.dtype.kind in "iu" and rows.dtype.itemsize > 2):
        return np.asarray(rows[:, 0], np.float64)
    return np.asarray(rows.argmax(axis=1), np.float64)


def _entropy(chances: Numbers) -> Numbers:
    """Shannon's entropy of rows of probabilities over that of equal ones: from 0 to 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(chances > 0, chances * np.log(chances), 0.0)
    return np.asarray(-parts.sum(axis=1) / np.log(max(2, chances.shape[1])), np.float64)
