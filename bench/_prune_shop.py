"""What both parts of `bench prune` do with a float ONNX file: make it int8, run it, weigh it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from backports import zstd

from edgefleet_contract.bundle import Format
from edgefleet_converter.arrays import Array, save_tensors
from edgefleet_converter.bench import CALIBRATION, Bench
from edgefleet_converter.loss import cross_entropy
from edgefleet_converter.metrics import Share, accuracy, agreement
from edgefleet_converter.opening import open_source
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.workshop import Workshop

RECIPE = """
targets = ["onnx-int8"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[measure]
enabled = false
[worker]
timeout_s = 3600
memory_mib = 16384
"""
SECONDS = 30.0
BATCH = 250
LEVEL = 19


@dataclass(frozen=True)
class Figures:
    """Of one file: shares with their 95 % intervals, bytes, and cross-entropy in nats."""

    accuracy: tuple[float, float, float]
    agreement: float
    loss: float
    size: int
    size_zstd: int
    p50_us: float = 0.0


class Shop:
    """The data in a folder, a scratch folder, and what the whole float model says."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.bench = Bench(parse_recipe(RECIPE, folder=folder), scratch, _tell)
        with np.load(folder / "held_out.npz") as file:
            self.x, self.truth = file["x"], file["y"]
        self.reference: Array | None = None
        save_tensors(scratch / "timed.npz", "input", (self.x[:32],))

    def opened(self, source: Path) -> Path:
        """The float model that is made of a source: batch normalisation folded, names tidied."""
        opened = open_source(self.bench, source, trust_pickle=False)
        return opened.models[Format.ONNX].path

    def int8(self, path: Path, name: str) -> Path:
        """The file as int8, calibrated."""
        made = self.bench.scratch / f"{name}.int8.onnx"
        given = {"model.onnx": path, "calibration.npz": self.bench.scratch / CALIBRATION}
        self.bench.task("quantize_onnx", f"quantizing {name}", given, {"int8.onnx": made})
        return made

    def answers(self, path: Path) -> Array:
        """What a file says to the held-out examples, in batches."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        parts = [self.x[at : at + BATCH] for at in range(0, len(self.x), BATCH)]
        return np.concatenate([session.run(None, {name: part})[0] for part in parts])

    def figures(self, path: Path, level: int = LEVEL) -> Figures:
        """What a file costs and says to the held-out examples; the first is the reference."""
        answers = self.answers(path)
        if self.reference is None:
            self.reference = answers
        raw = path.read_bytes()
        return Figures(
            _three(accuracy(answers, self.truth)),
            agreement(self.reference, answers).value,
            cross_entropy(answers, self.truth),
            len(raw),
            len(zstd.compress(raw, level=level)),
        )

    def times(self, paths: list[Path]) -> list[float]:
        """One inference of each, µs, in turns."""
        scratch = self.bench.scratch
        shop = Workshop(self.bench, Format.ONNX, {}, scratch / "timed.npz", Cache(scratch / "none"))
        return shop.times([path.read_bytes() for path in paths], scratch / "timed.npz", SECONDS)


def update_size(old: Path, new: Path) -> int:
    """What travels to a device that has the old file: the fleet's delta, or the file under zstd."""
    with tempfile.TemporaryDirectory() as name:
        patch = Path(name) / "patch"
        command = [sys.executable, "-m", "edgefleet_fleet.delta_encoder", old, new, patch]
        done = subprocess.run(command, capture_output=True, check=False)
        whole = len(zstd.compress(new.read_bytes(), level=19))
        return min(whole, patch.stat().st_size) if done.returncode == 0 else whole


def _three(share: Share) -> tuple[float, float, float]:
    return share.value, share.low, share.high


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
