"""Numbers in blocks of four bits: integers from -8 to 7 with one scale a block. Pure NumPy.

The scale of a block is the one of a few candidates with the least squared error. The value of the
largest magnitude may stand at -8 (by a negative scale, where it is positive) or at 7; a smaller
scale clips it and serves the rest better.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_ENDS: Final = (-8.0, 7.0)
_SHARES: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)


def blocks_of(rows: Floats, size: int) -> Floats:
    """Rows [N, K] as [N, blocks, size], filled up with zeros."""
    count, length = rows.shape
    pieces = -(-length // size)
    filled = np.zeros((count, pieces * size), np.float32)
    filled[:, :length] = rows
    return filled.reshape(count, pieces, size)


def quantize_blocks(blocks: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Integers of the same shape [N, blocks, size], and scales [N, blocks].

    >>> values, scales = quantize_blocks(np.asarray([[[-0.8, 0.4]]], np.float32))
    >>> values.tolist(), round(float(scales[0, 0]), 3)
    ([[[-8, 4]]], 0.1)
    """
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    peak = np.take_along_axis(blocks, at, axis=-1)[..., 0]
    best = np.full(peak.shape, np.inf)
    values, scales = np.zeros(blocks.shape, np.int8), np.ones(peak.shape, np.float32)
    for end in _ENDS:
        for share in _SHARES:
            tried = (peak * share / end).astype(np.float32)
            tried[tried == 0] = 1.0
            rounded = np.clip(np.rint(blocks / tried[..., None]), -8, 7)
            error = ((blocks - rounded * tried[..., None]) ** 2).sum(axis=-1)
            wins = error < best
            best[wins], scales[wins] = error[wins], tried[wins]
            values[wins] = rounded[wins].astype(np.int8)
    return values, scales


def packed_pairs(nibbles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values from 0 to 15 two a byte along the last axis, the first in the low half.

    >>> packed_pairs(np.asarray([1, 2, 3], np.uint8)).tolist()
    [33, 3]
    """
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros((*nibbles.shape[:-1], 1), np.uint8)], axis=-1)
    return np.asarray(nibbles[..., 0::2] | (nibbles[..., 1::2] << 4), np.uint8)
