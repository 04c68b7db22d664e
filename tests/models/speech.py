"""Silero's voice activity: who asks carries the state from answer to request; a net of `If`s.

A frame is speech where it lies in a recording of speech and is loud, and is none in tones, noise
and silence; quiet frames of recordings (pauses, ends of words) are played, but not judged.
"""

from __future__ import annotations

import numpy as np

from edgefleet_contract.bundle import Format
from tests.models import sound
from tests.models.cache import Package
from tests.models.subject import Copy, Played, Player, Score, Subject

SILERO = Package("pypi", "silero-vad", "6.2.3")
FRAME, CONTEXT = 512, 64
_LOUD = 0.35
_RECORDINGS = 40


def silero() -> Subject:
    """`silero_vad_16k_op15.onnx`."""
    raw = (SILERO.folder() / "silero_vad/data/silero_vad_16k_op15.onnx").read_bytes()
    clips = _clips()
    warm = ({"input": np.zeros((1, CONTEXT + FRAME), np.float32), **_start()},)
    copy = Copy(Format.ONNX, raw, "as published", warm)

    def play(player: Player, _: Copy) -> Played:
        played, right, judged = Played(), 0, 0
        for samples, truth in clips:
            state, context = _start(), np.zeros(CONTEXT, np.float32)
            for number, is_speech in enumerate(truth):
                frame = samples[number * FRAME : (number + 1) * FRAME]
                row = np.concatenate((context, frame))[None]
                answer = player.run({"input": row, **state})
                played.answers.append(answer)
                state["state"], context = answer["stateN"], frame[-CONTEXT:]
                if is_speech is not None:
                    judged += 1
                    right += (float(answer["output"][0, 0]) > 0.5) == is_speech
        played.scores = (Score("frames", right, judged, 0.965),)
        return played

    empty = {Format.TFLITE: "the TFLite writer has no If and no LSTM"}
    return Subject(3, "Silero VAD", (copy,), play, empty)


def _start() -> dict[str, np.ndarray]:
    return {"state": np.zeros((2, 1, 128), np.float32), "sr": np.array(sound.RATE, np.int64)}


def _clips() -> list[tuple[np.ndarray, list[bool | None]]]:
    prompts = sound.prompts()
    tones = [prompts.pop(name) for name in sound.TONES]
    said = [*sound.readings().values(), *list(prompts.values())[:: len(prompts) // _RECORDINGS]]
    clips = [(clip, _truth(clip)) for clip in said]
    noise = np.random.default_rng(7).normal(size=sound.RATE * 8).astype(np.float32)
    quiet = [*tones, noise * 0.002, noise * 0.05, np.zeros_like(noise)]
    clips += [(clip, [False] * (len(clip) // FRAME)) for clip in quiet]
    return clips


def _truth(clip: np.ndarray) -> list[bool | None]:
    frames = clip[: len(clip) // FRAME * FRAME].reshape(-1, FRAME)
    loudness = np.sqrt((frames**2).mean(1))
    enough = np.quantile(loudness, 0.95) * _LOUD
    return [True if level > enough else None for level in loudness]
