"""Recordings in: WAV files of whole numbers, one channel, as float32 from -1 to 1."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array
from edgefleet_converter.readers.wish import Audio

MAX_SAMPLES: Final = 100_000_000
SUFFIXES: Final = (".wav", ".wave")
_KINDS: Final = {1: "u1", 2: "<i2", 4: "<i4"}


def audio_reader(wish: Audio) -> Callable[[Path], Array]:
    """What reads one recording; all must have the sample rate of the first one."""
    rates: list[int] = [wish.rate] if wish.rate is not None else []

    def read(path: Path) -> Array:
        raw, width, rate = _frames(path)
        rates.append(rate)
        if rate != rates[0]:
            raise OperatorError(
                f"{path} has {rate} samples a second, not {rates[0]}",
                hint="bring all recordings to one rate: sox IN.wav -r RATE OUT.wav",
            )
        samples = np.frombuffer(raw, _KINDS[width]).astype(np.float64)
        plain = (samples - 128) / 128 if width == 1 else samples / 2 ** (8 * width - 1)
        sound = plain.astype(np.float32)
        if wish.samples is None:
            return sound
        cut = sound[: wish.samples]
        return np.concatenate([cut, np.zeros(wish.samples - len(cut), np.float32)])

    return read


def _frames(path: Path) -> tuple[bytes, int, int]:
    """The bytes of the samples, how many each has, and the rate."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getnchannels() != 1:
                raise OperatorError(
                    f"{path} has {file.getnchannels()} channels, not one",
                    hint="mix it down: sox IN.wav -c 1 OUT.wav",
                )
            if file.getsampwidth() not in _KINDS:
                raise OperatorError(f"{path} has samples of {8 * file.getsampwidth()} bits")
            if file.getnframes() > MAX_SAMPLES:
                raise OperatorError(f"{path} has more than {MAX_SAMPLES} samples")
            width = file.getsampwidth()
            raw = file.readframes(file.getnframes())
            return raw[: len(raw) // width * width], width, file.getframerate()
    except (wave.Error, EOFError, OSError) as error:
        raise OperatorError(f"{path} is no WAV file that can be read: {error}") from None
