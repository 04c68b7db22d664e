"""Sound to frames, and to mel spectrograms.

Sound is [N, S]: samples of float32 from -1 to 1, or int16, which is divided by 32768.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgefleet_contract.errors import Malformed
from edgefleet_processing.errors import BadInput
from edgefleet_processing.mel import MelScale, Norm, filter_bank
from edgefleet_processing.settings import positive, within
from edgefleet_processing.step import Run
from edgefleet_processing.tensors import Array, need_rank, need_room

MAX_FRAME: Final = 65536
MAX_FFT: Final = 16384
MAX_MELS: Final = 512
_MAX_RATE: Final = 384_000
_BLOCK: Final = 64


@dataclass(frozen=True, slots=True)
class Frames:
    """`length` of a frame and `hop` from one to the next, in samples."""

    length: int
    hop: int

    def __post_init__(self) -> None:
        within(self.length, what="length", least=1, most=MAX_FRAME)
        within(self.hop, what="hop", least=1, most=MAX_FRAME)


def frames(x: Array, by: Frames) -> Array:
    """[N, S] of float32 or int16 -> float32 [N, F, length], F = 1 + (S - length) // hop.

    What is left at the end is dropped.
    """
    found = _frames(samples(x), by.length, by.hop)
    need_room(found.shape, 4)
    return found.copy()


class Padding(StrEnum):
    """What is added before and after, fft // 2 samples each, so that frames are centred."""

    NONE = "none"
    ZEROS = "zeros"
    REFLECT = "reflect"


class Log(StrEnum):
    """What is taken of the energies: nothing, ln, log10, or decibels (10 log10; of magnitudes,
    20)."""

    NONE = "none"
    NATURAL = "natural"
    TEN = "ten"
    DECIBEL = "decibel"


@dataclass(frozen=True, slots=True)
class MelSpectrogram:
    """`rate` in Hz; `fft` and `hop` in samples; `window`: samples of the Hann window, 0 being
    `fft`; `mels`: how many bands, from `low` to `high` Hz, 0 being half the rate.

    `power`: 2 of energies, 1 of magnitudes. `log` is of max(x, `floor`).
    """

    rate: int
    fft: int
    hop: int
    mels: int
    window: int = 0
    low: int = 0
    high: int = 0
    scale: MelScale = MelScale.SLANEY
    norm: Norm = Norm.SLANEY
    power: int = 2
    padding: Padding = Padding.NONE
    log: Log = Log.NONE
    floor: str = "1e-10"

    def __post_init__(self) -> None:
        within(self.rate, what="rate", least=1, most=_MAX_RATE)
        within(self.fft, what="fft", least=2, most=MAX_FFT)
        within(self.hop, what="hop", least=1, most=MAX_FRAME)
        within(self.window, what="window", least=0, most=self.fft)
        within(self.mels, what="mels", least=1, most=MAX_MELS)
        within(self.high, what="high", least=0, most=self.rate // 2)
        within(self.low, what="low", least=0, most=(self.high or self.rate // 2) - 1)
        within(self.power, what="power", least=1, most=2)


def prepare_mel_spectrogram(to: MelSpectrogram, _: bytes | None) -> Run:
    """[N, S] of float32 or int16 -> float32 [N, F, mels], F = 1 + (S - fft) // hop, S being counted
    with the padding.

    Each frame is multiplied by the periodic Hann window, 0.5 - 0.5 cos(2 pi k / window), which lies
    in the middle of the frame; |DFT|^power of bins 0 to fft // 2 is multiplied by the filter bank
    (`mel.filter_bank`). All in float64, rounded at the end. As librosa's `melspectrogram`.
    """
    window = _window(to.window or to.fft, to.fft)
    high = to.high or to.rate / 2
    bank = filter_bank(to.rate, to.fft, to.mels, float(to.low), float(high), to.scale, to.norm)
    floor = positive(to.floor, "floor")
    if floor < 1e-37:
        raise Malformed(f"floor is {to.floor!r}: less than float32 holds")

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x = samples(taken[0])
        if to.padding is not Padding.NONE:
            x = _padded(x, to.fft // 2, to.padding)
        cut = _frames(x, to.fft, to.hop)
        rows, count = cut.shape[:2]
        need_room((rows, count, to.mels), 8)
        found = np.empty((rows, count, to.mels), np.float64)
        for row in range(rows):
            for start in range(0, count, _BLOCK):  # so that spectra are never held for all of it
                part = cut[row, start : start + _BLOCK] * window
                bins = np.abs(np.fft.rfft(part, axis=-1)) ** to.power
                found[row, start : start + _BLOCK] = bins @ bank
        return (_logarithm(found, to.log, floor, to.power).astype(np.float32),)

    return run


def samples(x: Array) -> NDArray[np.float32]:
    """Sound as float32 from -1 to 1."""
    need_rank(x, 2, "N, S")
    need_room(x.shape, 4)
    if x.dtype == np.int16:
        return x.astype(np.float32) / np.float32(32768)
    if x.dtype != np.float32:
        raise BadInput(f"takes sound of float32 or int16, got {x.dtype.name}")
    return x


def _frames(x: NDArray[np.float32], length: int, hop: int) -> NDArray[np.float32]:
    """A view [N, F, length] of the samples."""
    if x.shape[1] < length:
        raise BadInput(f"takes {length} samples at least, got {x.shape[1]}")
    found: NDArray[np.float32] = sliding_window_view(x, length, axis=1)[:, ::hop]
    return found


def _padded(x: NDArray[np.float32], by: int, how: Padding) -> NDArray[np.float32]:
    need_room((x.shape[0], x.shape[1] + 2 * by), 4)
    if how is Padding.ZEROS:
        return np.pad(x, ((0, 0), (by, by)))
    if x.shape[1] <= by:
        raise BadInput(f"takes more than {by} samples to reflect, got {x.shape[1]}")
    return np.pad(x, ((0, 0), (by, by)), mode="reflect")


def _window(size: int, fft: int) -> NDArray[np.float64]:
    window = np.zeros(fft)
    start = (fft - size) // 2
    window[start : start + size] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return window


def _logarithm(x: NDArray[np.float64], log: Log, floor: float, power: int) -> NDArray[np.float64]:
    if log is Log.NONE:
        return x
    np.maximum(x, floor, out=x)
    if log is Log.NATURAL:
        return np.log(x)
    return np.log10(x) * ((20 if power == 1 else 10) if log is Log.DECIBEL else 1)
