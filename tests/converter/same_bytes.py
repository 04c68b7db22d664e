"""Builds of the same input in two unlike environments: every file but the signature is the same.

    python -m tests.converter.same_bytes [CASE …]

Each case is built by the command twice: here, and where hashes are seeded otherwise, in another
working directory, home, time zone, language and temporary folder, with another umask, on one
processor and with another number of threads. Prints what differs, and ends with code 1 then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from sklearn.datasets import load_digits

from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import parse_recipe
from tests.converter import models
from tests.converter.conftest import CREATED, ROOT

SIGNATURE = "model.sig"
DATA = """
targets = {targets}
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[measure]
enabled = false
[budget]
max_accuracy_drop = 0.1
"""
PICTURES = """
targets = ["onnx-int8", "tflite-int8"]
[data]
calibration = "pictures.npy"
held_out = "held_out_pictures.npz"
[[before]]
step = "grey"
inputs = ["image"]
[[before]]
step = "resize"
height = 8
width = 8
method = "area"
[[before]]
step = "scale"
factor = 0.06274509803921569
[[before]]
step = "reshape"
shape = [64]
[[after]]
step = "top_k"
k = 3
[measure]
enabled = false
"""
JOIN = """
outputs = ["both"]
[data]
held_out = "twice.npz"
[models.a]
onnx = "digits.onnx"
tflite = "digits.tflite"
[models.b]
onnx = "digits.onnx"
tflite = "digits.tflite"
[[nodes]]
model = "a"
inputs = ["left"]
outputs = ["p"]
[[nodes]]
model = "b"
inputs = ["right"]
outputs = ["q"]
[[nodes]]
step = "weighted_mean"
inputs = ["p", "q"]
outputs = ["both"]
[measure]
enabled = false
"""


@dataclass(frozen=True)
class Case:
    """A command line after `edge-convert`, without what all have in common."""

    command: tuple[str, ...]


def _build(source: str, recipe: str, *settings: str) -> Case:
    more = [word for one in settings for word in ("--set", one)]
    return Case(("build", source, "--recipe", recipe, *more))


MIXED = ("search.enabled=true", "search.min_sqnr_db=44", "budget.min_sqnr_db=44")
"""More than int8 of all layers has: some stay float."""

CASES: Mapping[str, Case] = {
    "onnx": _build("digits.onnx", "both.toml"),
    "tflite": _build("digits.tflite", "tflite.toml"),
    "cnn": _build("cnn.onnx", "cnn.toml"),
    "sklearn": _build("digits.skops", "both.toml"),
    "search": _build("cnn.onnx", "cnn.toml", "search.enabled=true"),
    "search-mixed": _build("cnn.onnx", "cnn.toml", 'targets=["onnx-int8"]', *MIXED),
    "search-tflite": _build("digits.tflite", "tflite.toml", "search.enabled=true"),
    "prune": _build("digits.onnx", "both.toml", "prune.lambda=1e-4"),
    "prune-budget": _build("digits.onnx", "both.toml", "prune.max_accuracy_drop=0.02"),
    "steps": _build("digits.skops", "pictures.toml"),
    "prune-search-steps": _build(
        "digits.skops", "pictures.toml", "search.enabled=true", "prune.lambda=1e-5"
    ),
    "join": Case(("join", "join.toml")),
}


def main(argv: list[str]) -> int:
    """Build every case twice; 1 where files differ."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as name:
        folder = Path(name) / "given"
        folder.mkdir()
        lay_ground(folder, trained(Path(name) / "trained"))
        for case in argv or CASES:
            found = differing(folder, Path(name) / case, CASES[case])
            wrong += bool(found)
            print(f"{case}: {', '.join(found) or 'the same'}", flush=True)
    return int(bool(wrong))


def differing(folder: Path, out: Path, case: Case) -> list[str]:
    """The files of two builds in unlike environments that are not the same, the signature apart."""
    here, there = out / "here", out / "there"
    convert(folder, case.command, here, {"EDGE_CONVERT_CACHE": str(out / "cache-here")})
    elsewhere(folder, out, case.command, there)
    ours, theirs = files(here), files(there)
    assert ours, "nothing was built"
    names = sorted({*ours, *theirs})
    return [n for n in names if ours.get(n) != theirs.get(n) and Path(n).name != SIGNATURE]


def elsewhere(folder: Path, out: Path, line: tuple[str, ...], into: Path) -> None:
    """The command where nothing is as it is here."""
    home, scratch = out / "home", out / "scratch"
    home.mkdir(parents=True)
    scratch.mkdir()
    variables = {
        "EDGE_CONVERT_CACHE": str(out / "cache-there"),
        "PYTHONHASHSEED": "4711",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": str(scratch),
        "TZ": "Asia/Kathmandu",
        "LANG": "tr_TR.UTF-8",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "USER": "somebody",
        "COLUMNS": "40",
    }
    convert(
        folder, line, into, variables, cwd=home, umask=0o077, cpus={min(os.sched_getaffinity(0))}
    )


def convert(
    folder: Path,
    line: tuple[str, ...],
    out: Path,
    variables: Mapping[str, str],
    *,
    cwd: Path | None = None,
    umask: int = 0o022,
    cpus: set[int] | None = None,
) -> None:
    """`edge-convert` on what lies in a folder."""
    verb, *rest = (str(folder / word) if (folder / word).is_file() else word for word in line)
    common = ["--out", str(out), "--model", "m", "--version", "1"]
    common += ["--key", str(folder / "key.pem"), "--created", str(CREATED)]
    allowed = os.sched_getaffinity(0) if cpus is None else cpus
    done = subprocess.run(
        [sys.executable, "-m", "edgefleet_converter", verb, *rest, *common],
        cwd=cwd or folder,
        env={**os.environ, "PYTHONHASHSEED": "1", **variables},
        umask=umask,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(line)}: {done.stderr[-2000:]}"


def files(folder: Path) -> dict[str, bytes]:
    """Every file in it, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lay_ground(folder: Path, digits: Mapping[str, bytes]) -> None:
    """Real digits, a model of them in several formats (by suffix), a CNN, recipes and a key."""
    PrivateKey.generate_p256().save(folder / "key.pem")
    pixels, truth = load_digits(return_X_y=True)
    x = pixels.astype(np.float32)
    y = truth.astype(np.int64)
    np.save(folder / "calibration.npy", x[:100])
    np.savez(folder / "held_out.npz", x=x[1200:], y=y[1200:])
    np.savez(folder / "twice.npz", left=x[1200:1400], right=x[1200:1400], y=y[1200:1400])
    np.save(folder / "images.npy", models.examples(64, 2, 9, 9))
    np.savez(folder / "held_out_images.npz", x=models.examples(400, 2, 9, 9, seed=3))
    pictures = np.round(x.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    pictures = pictures.repeat(3, 1).repeat(3, 2)[..., None].repeat(3, -1)
    np.save(folder / "pictures.npy", pictures[:100])
    np.savez(folder / "held_out_pictures.npz", image=pictures[1200:], y=y[1200:])
    both, one = '["onnx-int8", "tflite-int8"]', '["tflite-float32", "tflite-int8"]'
    (folder / "both.toml").write_text(DATA.format(targets=both))
    (folder / "tflite.toml").write_text(DATA.format(targets=one))
    images = DATA.replace("calibration.npy", "images.npy").replace("held_out.", "held_out_images.")
    (folder / "cnn.toml").write_text(images.format(targets=both))
    (folder / "pictures.toml").write_text(PICTURES)
    (folder / "join.toml").write_text(JOIN)
    onnx.save(models.cnn(), folder / "cnn.onnx")
    for suffix, raw in digits.items():
        (folder / f"digits.{suffix}").write_bytes(raw)


def trained(folder: Path) -> dict[str, bytes]:
    """The demo's model as scikit-learn, ONNX and TFLite."""
    command = [sys.executable, str(ROOT / "demo" / "train_digits.py"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    recipe = DATA.format(targets='["onnx-float32", "tflite-float32"]')
    built = build(
        folder / "digits.skops",
        parse_recipe(recipe, folder=folder),
        out=folder / "out",
        model="m",
        version=1,
        key=PrivateKey.generate_p256(),
    )
    return {"skops": (folder / "digits.skops").read_bytes()} | float_models(built.path)


def float_models(bundle: Path) -> dict[str, bytes]:
    """Those of a bundle, by suffix."""
    return {
        kind: (bundle / f"{kind}-float32" / f"model.{kind}").read_bytes()
        for kind in ("onnx", "tflite")
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
