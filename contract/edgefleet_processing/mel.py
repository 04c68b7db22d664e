"""The mel scale, two ways, and filter banks on it."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.errors import Malformed

Floats = NDArray[np.float64]


class MelScale(StrEnum):
    """`htk`: 2595 log10(1 + f / 700) (O'Shaughnessy 1987, as in HTK). `slaney`: 3 f / 200 up to
    1000 Hz, above it 15 + 27 ln(f / 1000) / ln(6.4) (Slaney's Auditory Toolbox, 1998)."""

    HTK = "htk"
    SLANEY = "slaney"


class Norm(StrEnum):
    """How high a triangle is: 1, or 2 / its width in Hz, so that all have the same area."""

    NONE = "none"
    SLANEY = "slaney"


_KNEE_HZ = 1000.0
_KNEE_MEL = 15.0
_LOG_STEP = np.log(6.4) / 27.0


def to_mel(hz: Floats, scale: MelScale) -> Floats:
    """Hz as mel."""
    if scale is MelScale.HTK:
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = _KNEE_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz * 3.0 / 200.0, above)


def to_hz(mel: Floats, scale: MelScale) -> Floats:
    """Mel as Hz: `to_hz(to_mel(f)) == f`."""
    if scale is MelScale.HTK:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = _KNEE_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _KNEE_MEL) - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * 200.0 / 3.0, above)


def filter_bank(
    rate: int, fft: int, mels: int, low: float, high: float, scale: MelScale, norm: Norm
) -> Floats:
    """Weights [fft // 2 + 1, mels]: triangles over frequency in Hz, whose corners are `mels` + 2
    points at equal distances in mel from `low` to `high`. As `librosa.filters.mel`, transposed.

    Raises:
        Malformed: a band that lies between two bins, so that it would always be 0.
    """
    ends = to_mel(np.array([low, high]), scale)
    corners = to_hz(np.linspace(ends[0], ends[1], mels + 2), scale)
    bins = np.arange(fft // 2 + 1) * (rate / fft)
    rise = (bins[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    fall = (corners[2:] - bins[:, None]) / (corners[2:] - corners[1:-1])
    bank: Floats = np.maximum(0.0, np.minimum(rise, fall))
    empty = np.flatnonzero(~bank.any(axis=0))
    if len(empty):
        raise Malformed(
            f"band {empty[0]} of {mels} lies between two bins of the DFT",
            hint="fewer mels, or a longer fft",
        )
    if norm is Norm.SLANEY:
        bank *= 2.0 / (corners[2:] - corners[:-2])
    return bank
