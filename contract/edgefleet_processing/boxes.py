"""Boxes of detectors: their formats, and one of each thing (non-maximum suppression).

Boxes are float32 [..., 4] in any unit; sides may be negative nowhere: such a box has no area.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.errors import Malformed
from edgefleet_processing.errors import BadInput
from edgefleet_processing.settings import number, within
from edgefleet_processing.step import Run
from edgefleet_processing.tensors import Array, floats, need_room

MAX_BOXES: Final = 100_000
MAX_KEPT: Final = 4096

Floats = NDArray[np.float32]


class BoxFormat(StrEnum):
    """`xyxy`: two corners; `yxyx`: the same, rows first; `cxcywh`: centre and size; `xywh`: the
    least corner and size."""

    XYXY = "xyxy"
    YXYX = "yxyx"
    CXCYWH = "cxcywh"
    XYWH = "xywh"


@dataclass(frozen=True, slots=True)
class ConvertBoxes:
    """The format that goes in, and that which comes out."""

    source: BoxFormat
    to: BoxFormat


def convert_boxes(x: Array, settings: ConvertBoxes) -> Array:
    """Boxes [..., 4] -> float32 boxes of the same shape in another format."""
    x = floats(x)
    if x.ndim < 2 or x.shape[-1] != 4:
        raise BadInput(f"takes boxes [..., 4], got {list(x.shape)}")
    return _from_corners(_corners(x, settings.source), settings.to)


@dataclass(frozen=True, slots=True)
class Unletterbox:
    """`format` of the boxes."""

    format: BoxFormat = BoxFormat.XYXY


def prepare_unletterbox(settings: Unletterbox, _: bytes | None) -> Run:
    """Boxes [N, B, 4] in pixels of a `letterbox`, and its place [N, 4] -> float32 [N, B, 4] in
    pixels of the source."""

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x, place = map(floats, taken)
        if x.ndim != 3 or x.shape[2] != 4 or place.shape != (x.shape[0], 4):
            raise BadInput(f"takes [N, B, 4] and [N, 4], got {list(x.shape)}, {list(place.shape)}")
        corners = _corners(x, settings.format)
        moved = corners - place[:, None, (1, 0, 1, 0)]
        return (_from_corners(moved / place[:, None, (3, 2, 3, 2)], settings.format),)

    return run


@dataclass(frozen=True, slots=True)
class Suppress:
    """Boxes that overlap a better one by more than `iou` (of the same class, unless `agnostic`) go;
    so do those with less than `score`. `keep` is how many are left at most."""

    keep: int
    iou: str = "0.5"
    score: str = "0"
    format: BoxFormat = BoxFormat.XYXY
    agnostic: bool = False

    def __post_init__(self) -> None:
        within(self.keep, what="keep", least=1, most=MAX_KEPT)


def prepare_suppress(settings: Suppress, _: bytes | None) -> Run:
    """Boxes [N, B, 4] and scores [N, B, C] -> float32 boxes [N, keep, 4], scores [N, keep], int64
    classes [N, keep], and their number [N]; what is not used is 0, and class -1.

    A box is of the class with its largest score (the first of equal ones). The best box is kept,
    and all that overlap it by more than `iou` (intersection over union, in float32) go; then the
    best of the rest. Of equal scores the first box comes first; boxes with a number that is not
    finite, and scores that are NaN, go.
    """
    iou, score = (
        np.float32(number(settings.iou, "iou")),
        np.float32(number(settings.score, "score")),
    )
    if not 0 <= iou <= 1:
        raise Malformed(f"iou is {settings.iou!r}, must be from 0 to 1")

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x, scores = map(floats, taken)
        _check_boxes(x, scores)
        need_room((len(x), settings.keep, 4), 4)
        boxes = np.zeros((len(x), settings.keep, 4), np.float32)
        best = np.zeros((len(x), settings.keep), np.float32)
        classes = np.full((len(x), settings.keep), -1, np.int64)
        count = np.zeros(len(x), np.int64)
        for row in range(len(x)):
            of = scores[row].argmax(axis=1).astype(np.int64)
            own = scores[row].max(axis=1)
            good = np.flatnonzero((own >= score) & np.isfinite(x[row]).all(axis=1))
            order = good[np.argsort(-own[good], kind="stable")]
            corners = _corners(x[row], settings.format)
            group = np.zeros_like(of) if settings.agnostic else of
            kept = suppressed(corners[order], group[order], iou, settings.keep)
            chosen, n = order[kept], len(kept)
            boxes[row, :n], best[row, :n], classes[row, :n] = (
                x[row, chosen],
                own[chosen],
                of[chosen],
            )
            count[row] = n
        return boxes, best, classes, count

    return run


def suppressed(
    corners: Floats, classes: NDArray[np.int64], iou: np.float32, keep: int
) -> NDArray[np.intp]:
    """Which of some boxes [B, 4], best first, are kept: places, in that order."""
    rest = np.arange(len(corners))
    areas = _areas(corners)
    kept: list[int] = []
    while len(rest) and len(kept) < keep:
        first, rest = int(rest[0]), rest[1:]
        kept.append(first)
        low = np.maximum(corners[first, :2], corners[rest, :2])
        high = np.minimum(corners[first, 2:], corners[rest, 2:])
        shared = np.prod(np.maximum(high - low, np.float32(0)), axis=1)
        either = areas[first] + areas[rest] - shared
        goes = (shared > iou * either) & (classes[rest] == classes[first])
        rest = rest[~goes]
    return np.array(kept, np.intp)


def _check_boxes(x: Floats, scores: Floats) -> None:
    if x.ndim != 3 or x.shape[2] != 4 or scores.ndim != 3 or scores.shape[:2] != x.shape[:2]:
        raise BadInput(
            f"takes boxes [N, B, 4] and scores [N, B, C], got {list(x.shape)}, {list(scores.shape)}"
        )
    if not scores.shape[2] or x.shape[1] > MAX_BOXES:
        raise BadInput(f"takes a class at least, and {MAX_BOXES} boxes, got {list(scores.shape)}")


def _areas(corners: Floats) -> Floats:
    found: Floats = np.prod(np.maximum(corners[:, 2:] - corners[:, :2], np.float32(0)), axis=1)
    return found


def _corners(x: Floats, source: BoxFormat) -> Floats:
    """Any format as `xyxy`."""
    if source is BoxFormat.XYXY:
        return x
    if source is BoxFormat.YXYX:
        return x[..., (1, 0, 3, 2)]
    place, size = x[..., :2], x[..., 2:]
    low = place if source is BoxFormat.XYWH else place - size / np.float32(2)
    return np.concatenate([low, low + size], axis=-1)


def _from_corners(x: Floats, to: BoxFormat) -> Floats:
    """`xyxy` in any format."""
    if to is BoxFormat.XYXY:
        return x
    if to is BoxFormat.YXYX:
        return x[..., (1, 0, 3, 2)]
    low, size = x[..., :2], x[..., 2:] - x[..., :2]
    place = low if to is BoxFormat.XYWH else low + size / np.float32(2)
    return np.concatenate([place, size], axis=-1)
