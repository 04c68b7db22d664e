"""Networks that PyTorch trained here on real images, kept by the digest of all they follow from."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from bench._quant_models import Task
from tests.models.vision import mnist_rows

SCRIPT = Path(__file__).with_name("_train_images.py")
CACHE = Path.home() / ".cache" / "edgefleet-bench" / "convert"


class Untrained(Exception):
    """There is no network; the message says why."""


@cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """MNIST: images [N, 1, 28, 28] to learn from, to be asked about, and their digits."""
    x, held_out, y, truth = mnist_rows()
    return (
        x.reshape(-1, 1, 28, 28),
        held_out.reshape(-1, 1, 28, 28),
        y.astype(np.int64),
        truth.astype(np.int64),
    )


def trained(network: str, toolchain: Path | None) -> Task:
    """`mobilenet` or `cnn` on MNIST, as an exported program.

    Raises:
        Untrained: no toolchain is given, or it cannot train.
    """
    x, held_out, y, truth = digits()
    name = hashlib.sha256(SCRIPT.read_bytes() + x.tobytes() + y.tobytes()).hexdigest()[:16]
    path = CACHE / "trained" / f"{network}-{name}.pt2"
    if not path.exists():
        if toolchain is None:
            raise Untrained("needs --toolchain, an environment with PyTorch and litert-torch")
        _train(network, toolchain, x, y, path)
    return Task(f"mnist-{network}", path.read_bytes(), x[:256], held_out, truth)


def _train(network: str, toolchain: Path, x: np.ndarray, y: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        np.savez(Path(folder) / "images.npz", x=x, y=y)
        plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        python = toolchain / "bin" / "python"
        command = [python, SCRIPT, network, "images.npz", "out.pt2"]
        done = subprocess.run(
            command, cwd=folder, env=plain, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Untrained((done.stderr.strip().splitlines() or ["no word"])[-1])
        path.with_suffix(".log").write_text(done.stdout)
        (Path(folder) / "out.pt2").rename(path)
