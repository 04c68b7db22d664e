"""Bundles whose programs begin with what clients have, and end with what clients want: built from
real data, then tried and served by the device's own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.ports import TrialReport
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.pipeline import Built, build
from edgefleet_converter.recipe import parse_recipe
from tests.converter.conftest import CREATED, Digits
from tests.converter.trials import tried

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "neuf été")
PICTURES = """
targets = ["onnx-int8", "tflite-int8"]
[data]
calibration = "pictures.npy"
held_out = "held_out_pictures.npz"
labels = "labels.txt"

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


def pictures(pixels: np.ndarray) -> np.ndarray:
    """Digits of 8 by 8, 0 to 16, as photographs would be: uint8 [N, 24, 24, 3]."""
    grey = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return grey.repeat(3, 1).repeat(3, 2)[..., None].repeat(3, -1)


@pytest.fixture(scope="module")
def folder(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as clients would send them, beside the model."""
    made = tmp_path_factory.mktemp("pictures")
    held_out = np.load(digits.folder / "held_out.npz")
    np.save(made / "pictures.npy", pictures(np.load(digits.folder / "calibration.npy")[:100]))
    np.savez(made / "held_out_pictures.npz", image=pictures(held_out["x"]), y=held_out["y"])
    (made / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return made


@pytest.fixture(scope="module")
def seen(folder: Path, digits: Digits, key: PrivateKey) -> Built:
    recipe = parse_recipe(PICTURES, folder=folder)
    return build(
        digits.model, recipe, out=folder / "out", model="seen", version=1, key=key, created=CREATED
    )


def test_pictures_go_in_and_labels_come_out_of_every_variant(seen: Built) -> None:
    for variant in seen.manifest.variants:
        assert [(s.name, s.dtype, s.shape) for s in variant.inputs] == [
            ("image", "uint8", (-1, -1, -1, 3))
        ]
        assert [(s.name, s.dtype, s.shape) for s in variant.outputs] == [
            ("label", "string", (-1, 3)),
            ("score", "float32", (-1, 3)),
        ]
        assert variant.program is not None
        ops = [node.op for node in variant.program.nodes]
        assert ops == ["grey", "resize", "scale", "reshape", "model", "top_k"]
        assert variant.program.nodes[-1].file == seen.manifest.labels == "labels.txt"


def test_accuracy_is_that_of_the_labels_that_clients_get(seen: Built) -> None:
    for told in seen.report.variants:
        assert told.accuracy is not None
        assert told.accuracy.value > 0.93
        assert told.agreement is not None
        assert told.agreement.value > 0.97


@pytest.mark.parametrize("variant", ["onnx-int8", "tflite-int8"])
def test_a_device_gives_the_golden_answers_of_the_whole(seen: Built, variant: str) -> None:
    report = tried(seen.path, seen.manifest, variant)
    assert isinstance(report, TrialReport), report
    assert report.vectors == 16


def test_golden_labels_stay_when_the_models_outputs_are_rounded_another_way(seen: Built) -> None:
    for variant in seen.manifest.variants:
        label, score = load_tensors(seen.path / variant.golden, "output")
        assert len({row[0] for row in label.tolist()}) >= 9, "classes take turns"
        apart = score[:, 0] - score[:, 1]
        assert (apart > variant.max_abs_err_e6 / 1e6).all()
