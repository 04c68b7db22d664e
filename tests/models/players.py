"""Who runs a copy: the plain runtime, and the device's host with its trial, worker and HTTP."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter

from edgefleet_agent.client import Client
from edgefleet_agent.ports import Failed, ModelSpec, StoredFile, TrialReport
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.runtime.engines import open_session
from edgefleet_contract.bundle import Format, Variant, sha256
from tests.agent.hosting import RunningHost, running
from tests.models.subject import Copy, Player

SLOT = "model"
ENGINES = {Format.ONNX: "onnxruntime", Format.TFLITE: "litert"}


class PlainOnnx:
    """onnxruntime as its documentation has it, with one thread."""

    def __init__(self, raw: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Tensors) -> Tensors:
        return dict(zip(self._names, self._session.run(None, feeds), strict=True))

    def reset(self) -> None:
        """A graph remembers nothing."""


class PlainTflite:
    """LiteRT as its documentation has it, with one thread; `warm` as a worker does it."""

    def __init__(self, raw: bytes, warm: Tensors) -> None:
        self._raw, self._warm = raw, warm
        self.reset()

    def run(self, feeds: Tensors) -> Tensors:
        made = self._interpreter
        inputs = {detail["name"]: detail for detail in made.get_input_details()}
        if any(tuple(inputs[name]["shape"]) != array.shape for name, array in feeds.items()):
            for name, array in feeds.items():
                made.resize_tensor_input(inputs[name]["index"], array.shape)
            made.allocate_tensors()
        for name, array in feeds.items():
            made.set_tensor(inputs[name]["index"], array)
        made.invoke()
        return {d["name"]: made.get_tensor(d["index"]) for d in made.get_output_details()}

    def reset(self) -> None:
        self._interpreter: Any = Interpreter(model_content=self._raw, num_threads=1)
        self._interpreter.allocate_tensors()
        self.run(self._warm)


def plain(copy: Copy) -> Player:
    """The plain runtime of the copy's format."""
    if copy.format is Format.ONNX:
        return PlainOnnx(copy.raw)
    return PlainTflite(copy.raw, copy.warm[0])


@dataclass
class Served:
    """A copy on the device's host, asked over HTTP with binary tensors."""

    here: RunningHost
    client: Client
    folder: Path
    spec: ModelSpec
    version: int = 1

    def run(self, feeds: Tensors) -> Tensors:
        made = {n: a.astype(str) if a.dtype.kind == "O" else a for n, a in feeds.items()}
        return self.client.infer(SLOT, made)

    def reset(self) -> None:
        """A new worker: what a model keeps inside is not reset in any other way."""
        self.version += 1
        self.spec = replace(self.spec, version=self.version)
        failed = self.here.do(self.here.host.activate((self.spec,)))
        assert failed is None, failed


class Refused(Exception):
    """The trial did not pass; the message has the reason."""


@contextmanager
def served(copy: Copy) -> Iterator[Served]:
    """The copy, after its trial: golden vectors are the plain runtime's, and must be met exactly.

    Raises:
        Refused: see there.
    """
    with tempfile.TemporaryDirectory() as name, running() as here:
        spec = spec_of(copy, Path(name))
        report = here.do(here.host.trial(spec, timeout_s=120), timeout=150)
        if isinstance(report, Failed):
            raise Refused(f"{report.reason}: {report.detail}")
        assert isinstance(report, TrialReport)
        failed = here.do(here.host.activate((spec,)))
        if failed is not None:
            raise Refused(f"{failed.reason}: {failed.detail}")
        with Client(f"127.0.0.1:{here.port}") as client:
            yield Served(here, client, Path(name), spec)


def spec_of(copy: Copy, folder: Path) -> ModelSpec:
    """The copy as the store would hold it."""
    engine = ENGINES[copy.format]
    model, golden = folder / f"model.{copy.format}", folder / "golden.npz"
    model.write_bytes(copy.raw)
    (own,) = Accelerators().chain(engine)
    session = open_session(engine, copy.raw, threads=1, accelerator=own)
    inputs, outputs = session.inputs, session.outputs
    player = plain(copy)
    answers = [player.run(feeds) for feeds in copy.warm]
    arrays = {
        f"input.{i}": _stack([feeds[spec.name] for feeds in copy.warm])
        for i, spec in enumerate(inputs)
    }
    arrays |= {
        f"output.{i}": _stack([answer[spec.name] for answer in answers])
        for i, spec in enumerate(outputs)
    }
    np.savez(golden, **arrays)
    variant = Variant(
        name=str(copy.format),
        format=copy.format,
        precision="as it comes",
        model=model.name,
        golden=golden.name,
        max_abs_err_e6=copy.slack * 1_000_000,
        inputs=inputs,
        outputs=outputs,
        runtimes={engine: "0"},
    )
    return ModelSpec(
        slot=SLOT,
        model=SLOT,
        version=1,
        bundle_sha256=sha256(copy.raw),
        variant=variant,
        engine=engine,
        files={
            path.name: StoredFile(str(path), sha256(path.read_bytes())) for path in (model, golden)
        },
    )


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    made = np.stack(arrays)
    return made.astype(str) if made.dtype.kind == "O" else made
