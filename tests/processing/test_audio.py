"""Frames and mel spectrograms: against librosa's numbers, and against a DFT by its definition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_processing import StepFailed
from edgefleet_processing.mel import MelScale, to_hz, to_mel
from tests.processing.steps import one, ready

VECTORS = json.loads((Path(__file__).parent / "vectors" / "mel.json").read_text())
MEL: dict[str, object] = {"rate": 8000, "fft": 64, "hop": 20, "mels": 6}


def chirp(count: int) -> np.ndarray:
    """What the vectors were made of: a tone that rises, [1, count]."""
    t = np.arange(count) / 8000
    return np.sin(2 * np.pi * (200 * t + 3000 * t * t))[None].astype(np.float32)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_a_mel_spectrogram_is_librosas(case: dict[str, object]) -> None:
    """vectors/mel.json was made by vectors/make.py."""
    found = one("mel_spectrogram", chirp(VECTORS["samples"]), **case["settings"])  # type: ignore[arg-type] # JSON
    wanted = np.array(case["values"])
    assert found.dtype == np.float32
    assert found.shape == (1, *wanted.shape)
    assert np.allclose(found[0], wanted, rtol=2e-5, atol=1e-6)


def test_a_mel_spectrogram_is_what_its_definition_says() -> None:
    """Each number by sums over samples and bins, without an FFT."""
    x = np.random.default_rng(3).uniform(-1, 1, (2, 200)).astype(np.float32)
    found = one("mel_spectrogram", x, **MEL, window=48, scale="htk", norm="none", power=1)
    k = np.arange(48)
    window = np.zeros(64)
    window[8:56] = 0.5 - 0.5 * np.cos(2 * np.pi * k / 48)
    n, bins = np.arange(64), np.arange(33)
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 8) / 2595) - 1)
    for row in range(2):
        for frame in range(1 + (200 - 64) // 20):
            part = x[row, frame * 20 : frame * 20 + 64] * window
            size = np.abs(np.exp(-2j * np.pi * np.outer(bins, n) / 64) @ part)
            for band in range(6):
                low, mid, high = corners[band : band + 3]
                hz = bins * 8000 / 64
                weight = np.minimum((hz - low) / (mid - low), (high - hz) / (high - mid)).clip(0)
                assert np.isclose(found[row, frame, band], (weight * size).sum(), rtol=1e-5)


@pytest.mark.parametrize("scale", MelScale)
def test_mel_and_hertz_are_each_others_inverse(scale: MelScale) -> None:
    hz = np.linspace(0, 20_000, 500)
    assert np.allclose(to_hz(to_mel(hz, scale), scale), hz)
    assert np.all(np.diff(to_mel(hz, scale)) > 0)


def test_sound_of_16_bits_is_sound_from_minus_1_to_1() -> None:
    whole = (chirp(400) * 20000).astype(np.int16)
    assert np.array_equal(
        one("mel_spectrogram", whole, **MEL),
        one("mel_spectrogram", whole / np.float32(32768), **MEL),
    )


def test_logarithms_are_of_what_lies_over_the_floor() -> None:
    silent = np.zeros((1, 100), np.float32)
    for log, wanted in (("natural", np.log(1e-6)), ("ten", -6), ("decibel", -60)):
        found = one("mel_spectrogram", silent, **MEL, log=log, floor="1e-6")
        assert np.allclose(found, wanted)
    sound = chirp(400)
    plain = one("mel_spectrogram", sound, **MEL).astype(np.float64)
    logged = one("mel_spectrogram", sound, **MEL, log="decibel", floor="1e-20")
    assert np.allclose(logged, 10 * np.log10(plain), atol=1e-4)


def test_frames_are_slices_and_the_rest_is_dropped() -> None:
    x = np.arange(46, dtype=np.float32).reshape(2, 23)
    found = one("frames", x, length=8, hop=5)
    assert found.shape == (2, 4, 8)
    for i in range(4):
        assert np.array_equal(found[:, i], x[:, i * 5 : i * 5 + 8])


@pytest.mark.parametrize("op", ["frames", "mel_spectrogram"])
def test_too_little_sound_is_the_clients_mistake(op: str) -> None:
    more = {"length": 64, "hop": 20} if op == "frames" else MEL
    with pytest.raises(StepFailed, match="takes 64 samples at least, got 63") as caught:
        one(op, np.zeros((1, 63), np.float32), **more)
    assert caught.value.input_is_to_blame
    with pytest.raises(StepFailed, match="takes sound of float32 or int16"):
        one(op, np.zeros((1, 640), np.float64), **more)


def test_more_frames_than_there_is_room_for_are_refused() -> None:
    x = np.zeros((1, 100_000), np.float32)
    with pytest.raises(StepFailed, match="would need"):
        one("frames", x, length=65_536, hop=1)
    with pytest.raises(StepFailed, match="would need"):
        one("mel_spectrogram", x, rate=48_000, fft=16_384, hop=1, mels=512)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fft": 20_000},
        {"hop": 0},
        {"mels": 0},
        {"mels": 513},
        {"window": 65},
        {"low": 4000},
        {"high": 4001},
        {"low": 300, "high": 300},
        {"power": 3},
        {"floor": "0"},
        {"floor": "1e-99"},
        {"scale": "bark"},
        {"mels": 60},
    ],
    ids=str,
)
def test_settings_that_are_wrong_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed, match=r"node 0 \(mel_spectrogram\)"):
        ready("mel_spectrogram", **{**MEL, **wrong})
