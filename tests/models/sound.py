"""Recordings for the models that listen: real speech, tones, and words that a synthesizer speaks.

All as float32 in -1..1 at 16,000 samples a second.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from tests.models.cache import Package

RATE = 16_000
PROMPTS = Package("debian", "asterisk-core-sounds-en-wav")
READINGS = Package("debian", "pocketsphinx-testdata")
SYNTHESIZER = tuple(
    Package("debian", name)
    for name in ("espeak-ng", "libespeak-ng1", "espeak-ng-data", "libpcaudio0", "libsonic0")
)
TONES = ("ascending-2tone", "descending-2tone", "beep", "beeperr")


def prompts() -> dict[str, np.ndarray]:
    """Asterisk's announcements by name; the name is what is said, but for `TONES`."""
    folder = PROMPTS.folder() / "usr/share/asterisk/sounds/en_US_f_Allison"
    return {path.stem: read(path) for path in sorted(folder.glob("*.wav"))}


def readings() -> dict[str, np.ndarray]:
    """Sentences that people read aloud."""
    folder = READINGS.folder() / "usr/share/pocketsphinx/test/data"
    return {path.stem: read(path) for path in sorted(folder.glob("*/*.wav"))}


def read(path: Path) -> np.ndarray:
    """A mono file of 16 bits, brought to our rate."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2), path
        rate = file.getframerate()
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return resample(raw.astype(np.float32) / 32768, rate)


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """At our rate, with nothing above what the old one could hold (a cut spectrum)."""
    if rate == RATE:
        return samples
    wanted = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(samples)
    fitted = np.zeros(wanted // 2 + 1, spectrum.dtype)
    kept = min(len(fitted), len(spectrum))
    fitted[:kept] = spectrum[:kept]
    return (np.fft.irfft(fitted, wanted) * wanted / len(samples)).astype(np.float32)


def spoken(text: str, voice: str) -> np.ndarray:
    """What espeak-ng says in a voice such as `en-us+m3`."""
    folders = [package.folder() for package in SYNTHESIZER]
    libraries = [str(path.parent) for f in folders for path in f.glob("usr/lib/*/lib*.so*")]
    (data,) = (path for folder in folders for path in folder.glob("usr/lib/*/espeak-ng-data"))
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "said.wav"
        subprocess.run(
            [folders[0] / "usr/bin/espeak-ng", "-v", voice, "-w", out, text],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": ":".join(libraries),
                "ESPEAK_DATA_PATH": str(data),
            },
            check=True,
        )
        return read(out)
