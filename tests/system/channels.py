"""`make channels`: channels cut out of a real network in a real toolchain, with figures.

    python -m tests.system.channels TOOLCHAIN [RATIO …]

Trains a small CNN on handwritten digits, cuts a share of its channels in three steps with training
after each, builds a bundle of what comes out, and prints what `edge-convert prune-channels` prints.
TOOLCHAIN is an environment with torch, onnxscript, onnx and torch-pruning. Fails where a cut model
is not smaller and faster, or loses more than three points.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CODE = Path(__file__).with_name("digits_cnn.py")
RECIPE = """
targets = ["onnx-int8"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[prune.structured]
ratio = {ratio}
steps = 3
finetune = "digits_cnn:finetune"
[worker]
timeout_s = 600
memory_mib = 16384
"""
MOST_LOST = 0.03


def main() -> int:
    """Train, cut, build; 1 where it is not worth it."""
    toolchain = Path(sys.argv[1]).absolute()
    ratios = [float(one) for one in sys.argv[2:]] or [0.25, 0.5, 0.75]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_data(folder)
        shutil.copy(CODE, folder)
        python = toolchain / "bin" / "python"
        subprocess.run([python, "digits_cnn.py"], cwd=folder, check=True)
        _convert(folder, "keys", "new", "k.pem")
        return max(_cut(folder, toolchain, ratio) for ratio in ratios)


def _cut(folder: Path, toolchain: Path, ratio: float) -> int:
    (folder / "r.toml").write_text(RECIPE.format(ratio=ratio))
    cut = f"cut-{ratio}.onnx"
    line = ["prune-channels", "digits_cnn:trained", "--recipe", "r.toml", "--out", cut]
    told = json.loads(_convert(folder, *line, "--toolchain", str(toolchain), "--json"))
    print(f"ratio {ratio}: {told['parameters_before']} -> {told['parameters_after']} parameters")
    whole, smallest = told["rows"][0], told["rows"][-1]
    for row in told["rows"]:
        share, speed = row["accuracy"], row["measured"]["p50_us"]
        print(
            f"  {row['name']:14} {row['size'] / 1000:8.1f} kB  {100 * share['value']:.2f} % "
            f"({100 * share['low']:.1f} to {100 * share['high']:.1f})  {speed:7.0f} us  "
            f"x{whole['measured']['p50_us'] / speed:.2f}"
        )
    release = ["--model", "digits", "--version", "1", "--key", "k.pem", "--out", f"b{ratio}"]
    _convert(folder, "build", cut, "--recipe", "r.toml", *release)
    lost = whole["accuracy"]["value"] - smallest["accuracy"]["value"]
    is_faster = smallest["measured"]["p50_us"] < whole["measured"]["p50_us"]
    return int(lost > MOST_LOST or smallest["size"] >= whole["size"] or not is_faster)


def _convert(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edgefleet_converter", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ,
    )
    return done.stdout


def _write_data(folder: Path) -> None:
    pixels, truth = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 1, 8, 8).repeat(2, axis=2).repeat(2, axis=3).astype(np.float32)
    x, held_out, y, y_held_out = train_test_split(
        images, truth, test_size=0.3, random_state=7, stratify=truth
    )
    np.savez(folder / "digits.npz", x=x, y=y.astype(np.int64))
    np.save(folder / "calibration.npy", x[:300])
    np.savez(folder / "held_out.npz", x=held_out, y=y_held_out.astype(np.int64))


if __name__ == "__main__":
    sys.exit(main())
