"""Resizing images, [N, H, W, C] of uint8 or float32, to [N, h, w, C] of the same dtype.

Pixel i covers the interval from i to i + 1, so its centre is i + 1/2 (ONNX: `half_pixel`; Pillow
and OpenCV agree). Output pixel i is centred on (i + 1/2) H/h in the source. Rows are resized first,
then columns, in float32; uint8 is rounded once, half up.

- `nearest`: the pixel that holds the centre, floor((i + 1/2) H/h).
- `bilinear`: weights max(0, 1 - |d| / s) by the distance d of the centres, divided by their sum;
  pixels beyond the edge have none. s is 1, and where an image shrinks and `antialias` is on, H/h:
  then every source pixel counts (Pillow's BILINEAR, torchvision's antialias=True).
- `area`: the mean over the interval from i H/h to (i + 1) H/h, pixels in part counting in part
  (OpenCV's INTER_AREA when shrinking).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_processing.errors import BadInput
from edgefleet_processing.settings import within
from edgefleet_processing.tensors import Array, need_rank, need_room

MAX_SIDE: Final = 8192
_MAX_SOURCE: Final = 32768
_BAND: Final = 1 << 16
"""Numbers: 256 KiB of float32, which the second cache of a small board has room for."""


class Method(StrEnum):
    """Which source pixels make an output pixel."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    AREA = "area"


class Fit(StrEnum):
    """What becomes of the aspect ratio: nothing is kept; it is, and the result covers the size, or
    lies inside of it."""

    STRETCH = "stretch"
    COVER = "cover"
    INSIDE = "inside"


@dataclass(frozen=True, slots=True)
class Resize:
    """`height`, `width` in pixels; with `fit` other than `stretch`, one side has its size, and the
    other is rounded half up, at least 1."""

    height: int
    width: int
    method: Method = Method.BILINEAR
    antialias: bool = True
    fit: Fit = Fit.STRETCH

    def __post_init__(self) -> None:
        within(self.height, what="height", least=1, most=MAX_SIDE)
        within(self.width, what="width", least=1, most=MAX_SIDE)


def resize(x: Array, to: Resize) -> Array:
    """[N, H, W, C] -> [N, h, w, C], uint8 or float32."""
    need_image(x)
    height, width = fitted((x.shape[1], x.shape[2]), to)
    return resized(x, height, width, to.method, antialias=to.antialias)


def fitted(source: tuple[int, int], to: Resize) -> tuple[int, int]:
    """Height and width of the result for a source of this height and width."""
    if to.fit is Fit.STRETCH:
        return to.height, to.width
    height, width = source
    by_height = to.height * width > to.width * height  # the factor of the heights is larger
    if by_height == (to.fit is Fit.COVER):
        found = to.height, max(1, (2 * width * to.height + height) // (2 * height))
    else:
        found = max(1, (2 * height * to.width + width) // (2 * width)), to.width
    if max(found) > _MAX_SOURCE:
        raise BadInput(f"an image of {height} by {width} would become {found[0]} by {found[1]}")
    return found


def resized(x: Array, height: int, width: int, method: Method, *, antialias: bool) -> Array:
    """`x` in a size, without regard to its aspect ratio."""
    n, source_height, source_width, channels = x.shape
    need_room((n, height, source_width, channels), 4)
    need_room((n, height, width, channels), 4)
    if (source_height, source_width) == (height, width):
        return x
    if method is Method.NEAREST:
        rows = _nearest(source_height, height)
        return x[:, rows][:, :, _nearest(source_width, width)]
    if method is Method.AREA:
        down, across = _area(source_height, height), _area(source_width, width)
    else:
        down = _bilinear(source_height, height, antialias)
        across = _bilinear(source_width, width, antialias)
    found: Array = _weigh(_weigh(x, down, 1), across, 2)
    if x.dtype == np.uint8:
        found = np.floor(found + np.float32(0.5)).clip(0, 255).astype(np.uint8)
    return found


def need_image(x: Array) -> None:
    """Refuse what is not a batch of images with at least one pixel."""
    need_rank(x, 4, "N, H, W, C")
    if x.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
        raise BadInput(f"takes images of uint8 or float32, got {x.dtype.name}")
    if 0 in x.shape[1:] or max(x.shape[1:]) > _MAX_SOURCE:
        raise BadInput(f"takes sides from 1 to {_MAX_SOURCE}, got {list(x.shape)}")


_Taps = tuple[NDArray[np.intp], NDArray[np.float32]]
"""Which source pixels make an output pixel, and how much: two arrays [taps, size]."""


def _weigh(x: Array, taps: _Taps, axis: int) -> NDArray[np.float32]:
    """The weighted sums along axis 1 or 2, tap by tap, in bands of rows that fit into a cache."""
    index, weight = taps
    size = list(x.shape)
    size[axis] = index.shape[1]
    total = np.zeros(size, np.float32)
    rows = max(1, _BAND // max(1, size[0] * size[2] * size[3]))
    part = np.empty((size[0], min(rows, size[1]), *size[2:]), np.float32)
    for start in range(0, size[1], rows):
        band = total[:, start : start + rows]
        room = part[:, : band.shape[1]]
        if axis == 1:
            for i, w in zip(index[:, start : start + rows], weight[:, start:], strict=True):
                np.multiply(x[:, i], w[: len(i), None, None], out=room)
                band += room
        else:
            source = x[:, start : start + rows]
            for i, w in zip(index, weight, strict=True):
                np.multiply(source[:, :, i], w[:, None], out=room)
                band += room
    return total


def _nearest(source: int, size: int) -> NDArray[np.intp]:
    return (2 * np.arange(size, dtype=np.intp) + 1) * source // (2 * size)


@lru_cache(maxsize=8)
def _bilinear(source: int, size: int, antialias: bool) -> _Taps:
    step = source / size
    reach = max(step, 1.0) if antialias else 1.0
    centre = (np.arange(size) + 0.5) * step
    first = np.floor(centre - reach).astype(np.intp)
    index = first[None] + np.arange(int(np.ceil(2 * reach)) + 2)[:, None]
    weight = np.maximum(0.0, 1.0 - np.abs(index + 0.5 - centre) / reach)
    weight[(index < 0) | (index >= source)] = 0.0
    return _tidy(index.clip(0, source - 1), weight)


@lru_cache(maxsize=8)
def _area(source: int, size: int) -> _Taps:
    start = np.arange(size) * source  # in units of 1 / size of a pixel, so that all is exact
    first = start // size
    index = first[None] + np.arange(source // size + 2)[:, None]
    covered = np.minimum((index + 1) * size, start + source) - np.maximum(index * size, start)
    return _tidy(index.clip(0, source - 1), np.maximum(covered, 0).astype(np.float64))


def _tidy(index: NDArray[np.intp], weight: NDArray[np.float64]) -> _Taps:
    used = weight.any(axis=1)
    weight = weight[used] / weight.sum(axis=0)
    return index[used], weight.astype(np.float32)
