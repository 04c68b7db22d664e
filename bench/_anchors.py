"""Quantizers of others: each in an environment of its own, made once, run on the same examples.

Environments lie in the user's cache folder, made from the versions in `bench/peers/<name>.txt`. A
tool that cannot be installed or fails on a model is told with its words.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import psutil

from edgefleet_contract.bundle import Format

HERE = Path(__file__).parent / "peers"
CACHE = Path.home() / ".cache" / "edgefleet-bench" / "convert"
WAYS = ("default", "best")
TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Anchor:
    """A tool. `from_keras`: it starts from the Keras source alone."""

    packages: tuple[str, ...]
    format: Format
    from_keras: bool = False


ANCHORS = {
    "onnxruntime": Anchor(("onnxruntime", "onnx", "sympy"), Format.ONNX),
    "olive": Anchor(("olive-ai", "onnxruntime", "torch", "requests"), Format.ONNX),
    "nncf": Anchor(("nncf", "onnxruntime", "onnx"), Format.ONNX),
    "ai_edge_quantizer": Anchor(("ai-edge-quantizer",), Format.TFLITE),
    "tflite_converter": Anchor(
        ("tensorflow-cpu", "ai-edge-litert"), Format.TFLITE, from_keras=True
    ),
}


@dataclass(frozen=True, slots=True)
class Job:
    """What a tool gets: the float file, examples to watch, and examples to tune on."""

    model: Path
    source: bytes | None
    calibration: np.ndarray
    seen: np.ndarray
    says: np.ndarray
    truth: np.ndarray | None
    has_classes: bool
    max_drop: float
    min_sqnr_db: float


@dataclass(frozen=True, slots=True)
class Made:
    """An int8 file, or an error; and what it took: seconds, those of processors, MB at the most."""

    model: bytes = b""
    recipe: str = ""
    error: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0


def script(name: str) -> Path:
    """What runs in the tool's environment."""
    return HERE / f"{name}_quantizer.py"


def versions(name: str) -> Path:
    """What is installed there."""
    return HERE / f"{name}.txt"


@cache
def install(name: str, tell: Callable[[str], None]) -> Path | str:
    """The Python of the tool's environment, made the first time; or why there is none."""
    folder, wanted = CACHE / name, versions(name).read_text()
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    tell(f"installing {name} in {folder} (once)")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--constraint", versions(name), *ANCHORS[name].packages]
    for command in ([sys.executable, "-m", "venv", "--clear", folder], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{name} cannot be installed: {_last(done.stderr or done.stdout)}"
    stamp.write_text(wanted)
    return python


def run_anchor(name: str, way: str, job: Job, tell: Callable[[str], None]) -> Made:
    """What the tool makes of the model, by default or at its best."""
    python = install(name, tell)
    if isinstance(python, str):
        return Made(error=python)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+b") as log:
        folder = Path(scratch)
        _lay_out(folder, way, job)
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        begun = time.monotonic()
        process = subprocess.Popen(
            [python, script(name)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment | {"HOME": scratch, "TMPDIR": scratch, "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
        code, cpu_s, peak_mb = waited(process.pid, TIMEOUT_S)
        process.returncode = code
        took = {"seconds": time.monotonic() - begun, "cpu_s": cpu_s, "peak_mb": peak_mb}
        made = folder / "int8"
        if code or not made.exists():
            log.seek(0)
            said = _last(log.read().decode(errors="replace"))
            ended = f"ended by signal {-code}" if code < 0 else said
            return Made(error=ended, **took)
        said = json.loads((folder / "said.json").read_text())
        return Made(made.read_bytes(), said["recipe"], **took)


def waited(pid: int, timeout_s: float) -> tuple[int, float, float]:
    """The exit code of a child that leads its group, its seconds of processors, and its peak, MB.

    The peak is what it and its children hold together, looked at ten times a second: `ru_maxrss`
    would count what the parent held before the program was started. All are killed when the time
    is up.
    """
    until, peak = time.monotonic() + timeout_s, 0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        peak = max(peak, _held(pid))
        if time.monotonic() > until:
            os.killpg(pid, 9)
            until = float("inf")
        time.sleep(0.1)
    cpu_s = usage.ru_utime + usage.ru_stime
    return os.waitstatus_to_exitcode(status), cpu_s, peak / 1e6


def _held(pid: int) -> int:
    """Bytes in memory of a process and all below it."""
    try:
        leader = psutil.Process(pid)
        return sum(one.memory_info().rss for one in (leader, *leader.children(recursive=True)))
    except psutil.Error:
        return 0


def _lay_out(folder: Path, way: str, job: Job) -> None:
    (folder / "model").write_bytes(job.model.read_bytes())
    if job.source is not None:
        (folder / "source").write_bytes(job.source)
    np.savez(folder / "calibration.npz", x=job.calibration)
    known = {} if job.truth is None else {"truth": job.truth}
    np.savez(folder / "seen.npz", x=job.seen, says=job.says, **known)
    wanted = {"way": way, "has_classes": job.has_classes}
    wanted |= {"max_drop": job.max_drop, "min_sqnr_db": job.min_sqnr_db}
    (folder / "job.json").write_text(json.dumps(wanted))


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
