"""A task of the worker: an ONNX file before and after a pass, run on the same examples and weighed.

Each is opened in a process of its own, in turns: load to first answer, and private memory, of which
mapped weights take none. What another process has open as well is no one's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, load_tensors, write_npz
from edgefleet_converter.lifeline import die_with_parent
from edgefleet_converter.runners import OnnxRunner, run_all
from edgefleet_converter.trial import calls_of

WEIGHTS: Final = "model.weights"
"""What the file of weights is called beside its model."""

ROUNDS: Final = 5
_MODULE: Final = "edgefleet_converter.weighing"


def weigh(*, plain_before: bool, plain_after: bool, enabled: bool) -> dict[str, Json]:
    """`outputs.npz`: the answers of both to `inputs.npz`. Returns what they cost.

    Args:
        plain_before: `before.onnx` is opened without the runtime's passes.
        plain_after: likewise `after.onnx`, which may have its weights in `after.weights`.
        enabled: whether speed and memory are measured.
    """
    inputs = load_tensors(Path("inputs.npz"), "input")
    arrays: dict[str, Array] = {}
    for name, told, is_plain in (
        ("before", "before", plain_before),
        ("after", "output", plain_after),
    ):
        given = run_all(_open(f"{name}.onnx", is_plain=is_plain), inputs)
        arrays |= {f"{told}.{i}": array for i, array in enumerate(given)}
    write_npz(Path("outputs.npz"), arrays)
    return _costs(plain_before=plain_before, plain_after=plain_after) if enabled else {}


def _costs(*, plain_before: bool, plain_after: bool) -> dict[str, Json]:
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, is_plain, end in (
            ("before.onnx", plain_before, "_before"),
            ("after.onnx", plain_after, ""),
        ):
            done = subprocess.run(
                [sys.executable, "-m", _MODULE, name, str(int(is_plain))],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise OperatorError(f"{name} does not run: {done.stderr.strip()[-300:]}")
            for key, value in json.loads(done.stdout).items():
                found.setdefault(key + end, []).append(value)
    return {key: median(values) for key, values in found.items()}


def _open(name: str, *, is_plain: bool) -> OnnxRunner:
    place = Path(name).with_suffix(".weights")
    weights = {WEIGHTS: np.memmap(place, np.uint8, "r")} if place.exists() else {}
    return OnnxRunner(Path(name).read_bytes(), is_plain=is_plain, weights=weights)


def _private_mib() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


def main(argv: list[str]) -> None:
    """Open one file and say what that took."""
    die_with_parent(has_pipe=False)
    import onnx  # noqa: F401 - a device has no need of it: not counted
    import onnxruntime  # noqa: F401 - for its effect

    example = calls_of(load_tensors(Path("inputs.npz"), "input"), 1)[0]
    before, begun = _private_mib(), time.perf_counter_ns()
    runner = _open(argv[1], is_plain=argv[2] == "1")
    size = runner.inputs[0].shape[0] if runner.inputs[0].shape else -1
    if size > 1:
        example = calls_of(load_tensors(Path("inputs.npz"), "input"), size)[0]
    runner.infer(example)
    load_ms = (time.perf_counter_ns() - begun) / 1e6
    told = {"load_ms": load_ms, "ram_mib": max(0.0, _private_mib() - before)}
    print(json.dumps(told))  # noqa: T201 - for the parent


if __name__ == "__main__":
    main(sys.argv)
