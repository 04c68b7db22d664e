"""A trained model, a key and a finished bundle, made once; tests copy what they change."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_converter import pipeline
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recipe import Recipe, parse_recipe
from edgefleet_converter.search.cache import Cache

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests load models in this process, too
os.environ["EDGE_CONVERT_CACHE"] = tempfile.mkdtemp(prefix="edge-convert-cache-")  # of commands
atexit.register(shutil.rmtree, os.environ["EDGE_CONVERT_CACHE"], ignore_errors=True)

KEPT = Cache(Path(os.environ["EDGE_CONVERT_CACHE"]))
"""What one test has converted, the next need not: most are about what is made of it."""

ROOT = Path(__file__).parents[2]
CREATED = 1_700_000_000

ALL_TARGETS = """
targets = ["onnx-int8", "tflite-int8", "onnx-float32", "tflite-float32"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
labels = "labels.txt"
"""


@dataclass(frozen=True)
class Digits:
    """What `demo/train_digits.py` wrote."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "digits.skops"

    def recipe(self, *overrides: str, text: str = ALL_TARGETS) -> Recipe:
        return parse_recipe(text, folder=self.folder, overrides=overrides)


def build(source: Path | str, recipe: Recipe, *, cache: Cache | None = KEPT, **more: Any) -> Built:
    """As `pipeline.build`, which a test calls by `cache=None` that holds two builds together."""
    return pipeline.build(source, recipe, cache=cache, **more)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    folder = tmp_path_factory.mktemp("digits")
    command = [sys.executable, str(ROOT / "demo" / "train_digits.py"), str(folder)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    return Digits(folder)


@pytest.fixture(scope="session")
def key() -> PrivateKey:
    return PrivateKey.generate_p256()


@pytest.fixture(scope="session")
def ring(key: PrivateKey) -> KeyRing:
    return KeyRing([key.public])


@pytest.fixture(scope="session")
def built(digits: Digits, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The digits as all four variants, measured."""
    out = tmp_path_factory.mktemp("bundles")
    return build(
        digits.model,
        digits.recipe("measure.runs=50"),
        out=out,
        model="digits",
        version=1,
        key=key,
        created=CREATED,
    )
