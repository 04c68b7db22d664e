"""Scores to decisions: probabilities, the largest by name, yes or no, one answer of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgefleet_contract.errors import Malformed
from edgefleet_processing.errors import BadInput
from edgefleet_processing.scaling import checked_axis
from edgefleet_processing.settings import axis_of, number, positive, within
from edgefleet_processing.step import Run
from edgefleet_processing.tensors import (
    Array,
    as_strings,
    floats,
    lines,
    need_integers,
    need_rank,
    need_room,
)

MAX_K: Final = 4096
MAX_LABELS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Softmax:
    """`axis` of the classes; never 0."""

    axis: int = -1

    def __post_init__(self) -> None:
        axis_of(self.axis)


def softmax(x: Array, over: Softmax) -> Array:
    """Numbers -> float32 of the same shape: exp(x - max) / sum of it, along an axis."""
    x = floats(x)
    axis = checked_axis(x, over.axis)
    if not x.shape[axis]:
        raise BadInput(f"has no classes: {list(x.shape)}")
    found: Array = np.exp(x - x.max(axis=axis, keepdims=True))
    found /= found.sum(axis=axis, keepdims=True)
    return found


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """No settings."""


def sigmoid(x: Array, _: Sigmoid) -> Array:
    """Numbers -> float32 of the same shape: 1 / (1 + exp(-x)), without overflow."""
    x = floats(x)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, np.float32(1), small) / (np.float32(1) + small)


@dataclass(frozen=True, slots=True)
class Argmax:
    """`axis` of the classes; never 0."""

    axis: int = -1

    def __post_init__(self) -> None:
        axis_of(self.axis)


def argmax(x: Array, over: Argmax) -> Array:
    """Numbers -> int64 without that axis: where the largest is; the first of equal ones."""
    x = floats(x)
    axis = checked_axis(x, over.axis)
    if not x.shape[axis]:
        raise BadInput(f"has no classes: {list(x.shape)}")
    return np.asarray(x.argmax(axis=axis), np.int64)


@dataclass(frozen=True, slots=True)
class TopK:
    """`k`: how many."""

    k: int

    def __post_init__(self) -> None:
        within(self.k, what="k", least=1, most=MAX_K)


def prepare_top_k(settings: TopK, raw: bytes | None) -> Run:
    """Scores [N, C] -> the largest: float32 [N, k], largest first, and their places: int64 [N, k];
    with a file of C labels, first of all their labels: strings [N, k].

    Of equal scores the first comes first; NaN comes last. Fewer than k classes, or not as many as
    labels, are refused.
    """
    labels = None if raw is None else lines(raw, most=MAX_LABELS)
    if labels is not None and len(labels) < settings.k:
        raise Malformed(f"has {len(labels)} labels, and k is {settings.k}")

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x = floats(taken[0])
        need_rank(x, 2, "N, C")
        if labels is not None and x.shape[1] != len(labels):
            raise BadInput(f"has {len(labels)} labels, got scores of {list(x.shape)}")
        if x.shape[1] < settings.k:
            raise BadInput(f"takes {settings.k} classes at least, got {list(x.shape)}")
        need_room(x.shape, 8)
        places = np.argsort(-x, axis=1, kind="stable")[:, : settings.k].astype(np.int64)
        scores = np.take_along_axis(x, places, axis=1)
        if labels is None:
            return scores, places
        named = as_strings([labels[i] for i in places.ravel().tolist()], places.shape)
        return named, scores, places

    return run


@dataclass(frozen=True, slots=True)
class Labels:
    """`count`: how many labels the file must have, which is how many classes there are."""

    count: int

    def __post_init__(self) -> None:
        within(self.count, what="count", least=1, most=MAX_LABELS)


def prepare_labels(settings: Labels, raw: bytes | None) -> Run:
    """Integers of any shape -> strings of that shape: the label of each class; -1 is empty text."""
    assert raw is not None  # the step says that it must have a file
    labels = lines(raw, most=MAX_LABELS)
    if len(labels) != settings.count:
        raise Malformed(f"has {len(labels)} labels for {settings.count} classes")
    names = (*labels, "")

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x = taken[0]
        need_integers(x)
        if x.size and (int(x.min()) < -1 or int(x.max()) >= len(labels)):
            raise BadInput(
                f"has {len(labels)} labels, got classes {int(x.min())} to {int(x.max())}"
            )
        return (as_strings([names[i] for i in x.ravel().tolist()], x.shape),)

    return run


@dataclass(frozen=True, slots=True)
class Threshold:
    """`at` or more is yes."""

    at: str


def prepare_threshold(settings: Threshold, _: bytes | None) -> Run:
    """Numbers -> bool of the same shape: x >= at, `at` as float32 has it; NaN is no."""
    at = np.float32(number(settings.at, "at"))
    return lambda taken: (floats(taken[0]) >= at,)


@dataclass(frozen=True, slots=True)
class WeightedMean:
    """`weights`, one for each tensor, over 0; none: all alike."""

    weights: tuple[str, ...] = ()


def prepare_weighted_mean(settings: WeightedMean, _: bytes | None) -> Run:
    """Tensors of one shape -> float32 of that shape: the sum of weight times tensor, divided by the
    sum of the weights; in the order of the inputs, in float32.
    """
    weights = np.array([positive(text, "a weight") for text in settings.weights], np.float32)
    shares = weights / weights.sum() if len(weights) else weights

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(shares) not in (0, len(taken)):
            raise BadInput(f"has {len(shares)} weights, takes {len(taken)} tensors")
        shapes = [list(x.shape) for x in taken]
        if any(shape != shapes[0] for shape in shapes):
            raise BadInput(f"takes tensors of one shape, got {shapes}")
        own = shares if len(shares) else np.full(len(taken), 1 / len(taken), np.float32)
        total = floats(taken[0]) * own[0]
        for x, share in zip(taken[1:], own[1:], strict=True):
            total += floats(x) * share
        return (total,)

    return run
