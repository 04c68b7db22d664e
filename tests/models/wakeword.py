"""microWakeWord's "alexa": a stream of sound features, and a state that the model keeps inside.

The state is forgotten before each clip. Features are those of TensorFlow's microfrontend.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

from edgefleet_contract.bundle import Format
from tests.models import sound
from tests.models.cache import Package
from tests.models.subject import Copy, Played, Player, Score, Subject
from tests.models.vision import NO_ONNX, input_name

WORDS = Package("pypi", "pymicro-wakeword", "2.5.0")
FEATURES = Package("pypi", "pymicro-features", "2.0.2")
VOICES = tuple(
    f"{accent}+{voice}"
    for accent in ("en-us", "en-gb")
    for voice in ("m1", "m3", "m7", "f1", "f2", "f4")
)
_STRANGERS = 45
_CUTOFF, _WINDOW = 0.9, 5  # as alexa.json has them
_SCALE, _ZERO = 0.10196078568696976, -128
_STRIDE, _STEP = 3, 160


def alexa() -> Subject:
    """`alexa.tflite`, int8 in and uint8 out."""
    raw = (WORDS.folder() / "pymicro_wakeword/models/alexa.tflite").read_bytes()
    name = input_name(raw)
    called = [_features(sound.spoken("Alexa!", voice)) for voice in VOICES]
    people = [*sound.readings().values(), *sound.prompts().values()]
    long = [clip for clip in people if len(clip) > 1.5 * sound.RATE]
    strangers = [_features(clip) for clip in long[:: len(long) // _STRANGERS][:_STRANGERS]]
    silence = np.full((1, _STRIDE, 40), _ZERO, np.int8)
    copy = Copy(Format.TFLITE, raw, "as published, int8", ({name: silence},), slack=1)

    def hears(player: Player, rows: np.ndarray, played: Played) -> bool:
        player.reset()
        found: list[float] = []
        for row in rows:
            answer = player.run({name: row[None]})
            played.answers.append(answer)
            found.append(float(next(iter(answer.values())).ravel()[0]) / 256)
        means = np.convolve(found, np.ones(_WINDOW) / _WINDOW, "valid")
        return bool((means > _CUTOFF).any())

    def play(player: Player, _: Copy) -> Played:
        played = Played()
        heard = sum(hears(player, rows, played) for rows in called)
        passed = sum(not hears(player, rows, played) for rows in strangers)
        played.scores = (
            Score("voices that call", heard, len(called), 11 / 12),
            Score("clips of others, not taken for it", passed, len(strangers), 44 / 45),
        )
        return played

    return Subject(4, "wake word (alexa)", (copy,), play, {Format.ONNX: NO_ONNX})


def _features(clip: np.ndarray) -> np.ndarray:
    """int8 [N, 3, 40] of a clip with half a second of quiet on both sides."""
    quiet = np.zeros(sound.RATE // 2, np.float32)
    padded = np.concatenate((quiet, clip, quiet))
    raw = (np.clip(padded, -1, 1) * 32767).astype("<i2").tobytes()
    frontend = _microfrontend().MicroFrontend()
    rows: list[list[float]] = []
    at = 0
    while at + 2 * _STEP <= len(raw):
        made = frontend.process_samples(raw[at : at + 2 * _STEP])
        at += made.samples_read * 2
        if made.features:
            rows.append(made.features)
    found = np.array(rows, np.float32)
    whole = found[: len(found) // _STRIDE * _STRIDE].reshape(-1, _STRIDE, 40)
    return np.clip(np.round(whole / _SCALE + _ZERO), -128, 127).astype(np.int8)


def _microfrontend() -> Any:
    folder = str(FEATURES.folder())
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("pymicro_features")
