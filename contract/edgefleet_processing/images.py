"""What is done to images beside resizing: cropping, padding, order of axes and of colours.

Images are [N, H, W, C] of uint8 or float32 until `layout` says otherwise, and keep their dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from edgefleet_contract.errors import Malformed
from edgefleet_processing.errors import BadInput
from edgefleet_processing.resize import (
    MAX_SIDE,
    Fit,
    Method,
    Resize,
    fitted,
    need_image,
    resized,
)
from edgefleet_processing.settings import within
from edgefleet_processing.step import Run
from edgefleet_processing.tensors import Array, need_rank, need_room


@dataclass(frozen=True, slots=True)
class CentreCrop:
    """`height`, `width` in pixels."""

    height: int
    width: int

    def __post_init__(self) -> None:
        within(self.height, what="height", least=1, most=MAX_SIDE)
        within(self.width, what="width", least=1, most=MAX_SIDE)


def centre_crop(x: Array, to: CentreCrop) -> Array:
    """[N, H, W, C] -> [N, h, w, C]: from row (H - h) // 2 and column (W - w) // 2 on."""
    need_image(x)
    top, left = (x.shape[1] - to.height) // 2, (x.shape[2] - to.width) // 2
    if top < 0 or left < 0:
        raise BadInput(f"cannot crop {to.height} by {to.width} out of {list(x.shape)}")
    found: Array = x[
        :, top : top + to.height, left : left + to.width
    ].copy()  # a view keeps all of x
    return found


@dataclass(frozen=True, slots=True)
class Pad:
    """Pixels on each side, and the `value` (0 to 255) that they have in all channels."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    value: int = 0

    def __post_init__(self) -> None:
        for what in ("top", "bottom", "left", "right"):
            within(getattr(self, what), what=what, least=0, most=MAX_SIDE)
        within(self.value, what="value", least=0, most=255)


def pad(x: Array, by: Pad) -> Array:
    """[N, H, W, C] -> [N, top + H + bottom, left + W + right, C]."""
    need_image(x)
    n, height, width, channels = x.shape
    size = (n, by.top + height + by.bottom, by.left + width + by.right, channels)
    need_room(size, x.itemsize)
    found = np.full(size, by.value, x.dtype)
    found[:, by.top : by.top + height, by.left : by.left + width] = x
    return found


@dataclass(frozen=True, slots=True)
class Letterbox:
    """`height`, `width` of the result in pixels; `value` (0 to 255) of the bars."""

    height: int
    width: int
    value: int = 114
    method: Method = Method.BILINEAR
    antialias: bool = True

    def __post_init__(self) -> None:
        within(self.height, what="height", least=1, most=MAX_SIDE)
        within(self.width, what="width", least=1, most=MAX_SIDE)
        within(self.value, what="value", least=0, most=255)


def prepare_letterbox(to: Letterbox, _: bytes | None) -> Run:
    """[N, H, W, C] -> [N, h, w, C], and float32 [N, 4]: top, left, and the factors of the rows and
    of the columns. The image keeps its aspect ratio and lies in the middle: (h - H') // 2 rows of
    `value` above it, (w - W') // 2 columns to its left. A point y of the source is at y f + top.
    """

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x = taken[0]
        need_image(x)
        inside = Resize(to.height, to.width, to.method, to.antialias, Fit.INSIDE)
        height, width = fitted((x.shape[1], x.shape[2]), inside)
        small = resized(x, height, width, to.method, antialias=to.antialias)
        top, left = (to.height - height) // 2, (to.width - width) // 2
        bars = Pad(top, to.height - height - top, left, to.width - width - left, to.value)
        place = (top, left, height / x.shape[1], width / x.shape[2])
        return pad(small, bars), np.tile(np.array([place], np.float32), (len(x), 1))

    return run


class Order(StrEnum):
    """Where the channels stand."""

    NCHW = "nchw"
    NHWC = "nhwc"


@dataclass(frozen=True, slots=True)
class Layout:
    """`to`: the order that comes out; the other one goes in."""

    to: Order


def layout(x: Array, settings: Layout) -> Array:
    """[N, H, W, C] -> [N, C, H, W], or back."""
    need_rank(x, 4, "N, H, W, C" if settings.to is Order.NCHW else "N, C, H, W")
    moved = x.transpose((0, 3, 1, 2) if settings.to is Order.NCHW else (0, 2, 3, 1))
    return np.ascontiguousarray(moved)


@dataclass(frozen=True, slots=True)
class SwapColours:
    """No settings."""


def swap_colours(x: Array, _: SwapColours) -> Array:
    """[N, H, W, 3], red, green and blue -> blue, green and red, or back."""
    need_colours(x)
    return np.ascontiguousarray(x[..., ::-1])


@dataclass(frozen=True, slots=True)
class Grey:
    """`channels`: 1, or 3 that are equal."""

    channels: int = 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise Malformed(f"channels is {self.channels}, must be 1 or 3")


def grey(x: Array, settings: Grey) -> Array:
    """[N, H, W, 3], RGB -> [N, H, W, channels]: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    uint8 is computed with weights of 65536ths, (19595 R + 38470 G + 7471 B + 32768) >> 16, which is
    what Pillow's `convert("L")` gives.
    """
    need_colours(x)
    need_room(x.shape, 4)
    if x.dtype == np.uint8:
        found = (x.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 32768) >> 16
        found = found.astype(np.uint8)
    else:
        found = x @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat(found[..., None], settings.channels, axis=-1)


def need_colours(x: Array) -> None:
    """Refuse what is not a batch of images with three channels."""
    need_image(x)
    if x.shape[3] != 3:
        raise BadInput(f"takes [N, H, W, 3], got {list(x.shape)}")
