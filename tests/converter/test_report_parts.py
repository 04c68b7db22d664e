"""What a report says beside its figures: anchors, layers, histograms, a sweep; from real builds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter import lambda_points
from edgefleet_converter.isolation import run_task
from edgefleet_converter.page.told import read_told
from edgefleet_converter.passes.clipping import BARS, Seen
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recipe import Recipe, Worker, parse_recipe
from edgefleet_converter.recipe_report import ReportWish
from tests.converter.conftest import CREATED, Digits, build
from tests.converter.models import examples, mlp, save

RECIPE = """
targets = ["onnx-int8"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[measure]
enabled = false
[budget]
max_accuracy_drop = 1.0
[prune]
lambda = 1e-4
[report]
anchors = true
sensitivity = true
histograms = true
lambda_sweep = true
"""


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Built:
    """A small network with all that a report may have, two points of a sweep instead of twelve."""
    folder = tmp_path_factory.mktemp("looked")
    source = save(mlp(), folder, examples(64, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lambda_points, "POINTS", 2)
        return build(
            source,
            parse_recipe(RECIPE, folder=folder),
            out=folder,
            model="m",
            version=1,
            key=key,
            created=CREATED,
        )


def test_the_anchor_is_what_onnxruntime_makes_with_no_option(looked: Built) -> None:
    assert looked.report.anchors is not None
    (anchor,) = looked.report.anchors
    assert (anchor.name, anchor.target, anchor.error) == ("onnxruntime defaults", "onnx-int8", "")
    assert anchor.sqnr_db is not None
    assert 5 < anchor.sqnr_db < looked.report.variants[0].sqnr_db + 20
    assert anchor.size > 500
    assert anchor.agreement is not None
    assert anchor.agreement.n == 64
    assert anchor.measured is None, "the recipe measures nothing"
    assert not [file for file in looked.manifest.files if "anchor" in file.path]


def test_every_layer_is_left_float_once(looked: Built) -> None:
    found = looked.report.variants[0].sensitivity
    assert found is not None
    assert found.is_complete
    assert {one.name for one in found.layers} == {"Gemm_a", "Gemm_l"}
    gains = [one.gain_db for one in found.layers]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0
    assert abs(found.sqnr_db - looked.report.variants[0].sqnr_db) < 3


def test_histograms_have_what_meets_the_quantizers(looked: Built) -> None:
    found = looked.report.variants[0].histograms
    assert found is not None
    by_name = {one.name: one for one in found}
    x = np.load(looked.path.parent / "calibration.npy")
    assert sum(by_name["x"].counts) == x.size
    assert by_name["x"].low <= x.min() < by_name["x"].clip_low + 0.05
    assert all(one.clipped is not None and 0 <= one.clipped < 0.1 for one in found)
    rectified = [one for one in found if one.clip_low == 0]
    assert rectified
    assert all(sum(one.counts) <= 64 * 8 for one in rectified)


def test_the_sweep_is_of_the_model_that_came_in(looked: Built) -> None:
    found = looked.report.lambda_sweep
    assert found is not None
    assert found.is_complete
    first, last = found.points
    assert (first.lambda_, first.norm0) == (0.0, first.weights)
    assert last.norm0 == 0
    assert first.sqnr_db > 20 > last.sqnr_db


def test_the_page_reads_what_the_build_wrote(looked: Built) -> None:
    told = read_told(json.loads((looked.path / "report.json").read_bytes()))
    assert [one.is_anchor for one in told.anchors] == [True]
    assert [(owner, len(layers)) for owner, layers in told.layers] == [("onnx-int8", 2)]
    assert len(told.histograms) == len(looked.report.variants[0].histograms or ())
    assert [len(dots) for _, dots in told.sweeps] == [2]


def test_tflite_tensors_are_seen_behind_their_quantizer(built: Built, digits: Digits) -> None:
    with np.load(digits.folder / "held_out.npz") as file:
        x = file["x"][:16]
    data = built.path.parent / "some.npz"
    np.savez(data, **{"input.0": x})
    says = run_task(
        "clipping_tflite",
        what="looking",
        limits=Worker(),
        inputs={"model": built.path / "tflite-int8/model.tflite", "calibration.npz": data},
    )
    data.unlink()
    tensors = says["tensors"]
    assert isinstance(tensors, list)
    for one in tensors:
        assert isinstance(one, dict)
        assert "clipped" not in one
        counts, share = one["counts"], one["at_end"]
        assert isinstance(counts, list)
        assert isinstance(share, float)
        assert len(counts) == BARS
        assert 0 <= share <= 1


def test_what_a_range_cuts_off_is_counted() -> None:
    """Of a range from -1 to 1: three of eight are outside; a rectifier's zeros are not counted."""
    values = np.asarray([-3, -1, -0.5, 0, 0.5, 1, 1.5, 9], np.float32)
    for low, share in ((-1.0, 3 / 8), (0.0, 2 / 8)):
        seen = Seen("t", low, 1.0)
        seen.stretch(values)
        seen.add(values)
        assert seen.share == share
        assert seen.bars.sum() == (8 if low else 5)
        assert seen.ends == (-3.0 if low else 0.0, 9.0)


def recipe_with(folder: Path, line: str) -> Recipe:
    text = RECIPE.partition("[prune]")[0] + f"[report]\n{line}\n"
    return parse_recipe(text, folder=folder)


def test_a_wish_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        OperatorError, match=r"lambda_sweep: needs calibration data and a \[prune\]"
    ):
        recipe_with(tmp_path, "lambda_sweep = true")
    with pytest.raises(OperatorError, match="unknown"):
        recipe_with(tmp_path, "anchor = true")
    with pytest.raises(Malformed, match="1 or more"):
        ReportWish(time_limit_s=0)
