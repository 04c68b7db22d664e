"""The figures of the report, from arrays that somebody else measured. Pure NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

EXACT_DB = 200.0
"""Stands for the noise of a perfect copy, which has no finite ratio."""

_ERR = 0.05


@dataclass(frozen=True, slots=True)
class Share:
    """A share of `n` trials with its 95 % Wilson score interval (Wilson, JASA 22, 1927)."""

    value: float
    low: float
    high: float
    n: int


def z_of(look: int = 0) -> float:
    """How many standard deviations an interval of 95 % reaches from the middle.

    Where candidates are held against the same examples one after another until one fits, intervals
    have to hold for all of them together: that of the k-th `look` may err by 5 % / (k (k + 1)),
    which is half of the 5 % for the first, a sixth for the second, and no more than 5 % in all
    however many there are (Bonferroni, with shares that sum to one). 0: nothing walks.

    >>> [round(z_of(k), 2) for k in (0, 1, 2, 8)]
    [1.96, 2.24, 2.64, 3.39]
    """
    err = _ERR / (look * (look + 1)) if look else _ERR
    return NormalDist().inv_cdf(1 - err / 2)


def wilson(successes: int, n: int, *, look: int = 0) -> Share:
    """The share `successes / n` and its 95 % interval; see `z_of`.

    >>> share = wilson(95, 100)
    >>> round(share.low, 4), round(share.high, 4)
    (0.8882, 0.9785)
    """
    if n < 1:
        raise ValueError("a share of no trials")
    share = successes / n
    z = z_of(look)
    z2 = z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Share(share, max(0.0, middle - half), min(1.0, middle + half), n)


def decide(outputs: NDArray[np.generic]) -> NDArray[np.int64]:
    """The class of each row of scores [N, C]; of a single score, whether it is over 0.5."""
    scores = outputs.reshape(len(outputs), -1).astype(np.float64)
    if scores.shape[1] == 1:
        return np.asarray(scores[:, 0] > 0.5, np.int64)
    return np.asarray(scores.argmax(axis=1), np.int64)


def are_probabilities(outputs: NDArray[np.generic]) -> bool:
    """Whether rows [N, C] of more than one value are distributions: not negative, summing to 1."""
    if outputs.ndim != 2 or outputs.shape[1] < 2 or outputs.dtype.kind != "f":
        return False
    values = outputs.astype(np.float64)
    return bool((values >= 0).all() and (np.abs(values.sum(axis=1) - 1) < 1e-3).all())


def accuracy(outputs: NDArray[np.generic], labels: NDArray[np.generic]) -> Share:
    """The share of rows of `outputs` [N, C] whose class is that of `labels` [N]."""
    return wilson(int((decide(outputs) == labels).sum()), len(labels))


def agreement(a: NDArray[np.generic], b: NDArray[np.generic], *, look: int = 0) -> Share:
    """The share of rows in which two models choose the same class."""
    return wilson(int((decide(a) == decide(b)).sum()), len(a), look=look)


def sqnr_db(reference: NDArray[np.generic], copy: NDArray[np.generic]) -> float:
    """The signal to quantization noise ratio of a copy, dB: 10 log10(sum r^2 / sum (r - c)^2).

    A perfect copy has no finite one; `EXACT_DB` stands for it.
    """
    signal = float((reference.astype(np.float64) ** 2).sum())
    noise = float(((reference.astype(np.float64) - copy.astype(np.float64)) ** 2).sum())
    if noise == 0.0:
        return EXACT_DB
    if signal == 0.0:
        return -EXACT_DB
    return min(EXACT_DB, 10.0 * math.log10(signal / noise))


def max_abs_err(reference: NDArray[np.generic], copy: NDArray[np.generic]) -> float:
    """The largest absolute difference of two arrays of one shape."""
    if reference.size == 0:
        return 0.0
    return float(np.abs(reference.astype(np.float64) - copy.astype(np.float64)).max())


def relative_err(reference: NDArray[np.generic], copy: NDArray[np.generic]) -> float:
    """`max_abs_err`, divided by the largest magnitude of the reference where that is over 1."""
    scale = float(np.abs(reference.astype(np.float64)).max()) if reference.size else 1.0
    return max_abs_err(reference, copy) / max(1.0, scale)
