"""Cutting channels, as far as it goes without PyTorch; `make channels` does the rest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter import cli
from edgefleet_converter.pipeline import Built, build
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.sources.onnx import STRUCTURED
from tests.converter.models import examples, mlp, save

RECIPE = """targets = ["onnx-float32"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[measure]
enabled = false
"""
CUT = '[prune.structured]\nratio = 0.5\nsteps = 2\nfinetune = "m:f"\n'
STAMP = {"finetune": "m:f", "ratio": 0.5, "round_to": 8, "steps": 2}


def built(folder: Path, stamp: object) -> Built:
    model = mlp()
    if stamp:
        model.metadata_props.add(key=STRUCTURED, value=json.dumps(stamp, sort_keys=True))
    path = save(model, folder, examples(40, 4))
    recipe = parse_recipe(RECIPE + CUT, folder=folder)
    key = PrivateKey.generate_p256()
    return build(path, recipe, out=folder / "out", model="m", version=1, key=key)


def test_a_model_that_was_cut_as_the_recipe_says_is_built(tmp_path: Path) -> None:
    found = built(tmp_path, STAMP)
    assert found.report.prune is None  # no single weight was made zero
    origin = json.loads((found.path / "provenance.intoto.json").read_bytes())
    told = origin["predicate"]["buildDefinition"]["externalParameters"]["recipe"]["prune"]
    assert told == {"structured": STAMP}


@pytest.mark.parametrize("stamp", [None, STAMP | {"ratio": 0.25}, STAMP | {"round_to": 1}])
def test_a_model_that_was_not_is_refused(tmp_path: Path, stamp: object) -> None:
    with pytest.raises(OperatorError, match=r"not as prune\.structured") as caught:
        built(tmp_path, stamp)
    assert "prune-channels" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        (RECIPE, [], "the recipe has no [prune.structured]"),
        (RECIPE.replace('calibration = "calibration.npy"', "") + CUT, [], "data.calibration"),
        (RECIPE + CUT, ["--toolchain", "nowhere"], "the toolchain nowhere has no Python"),
        (RECIPE + CUT, [], "is not installed"),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    more: list[str],
    says: str,
) -> None:
    if says == "is not installed":
        try:
            import torch_pruning  # noqa: F401 - whether it is there is asked
        except ModuleNotFoundError:
            pass
        else:
            pytest.skip("torch-pruning is installed here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGE_CONVERT_TOOLCHAIN", raising=False)
    np.save("calibration.npy", examples(8, 4))
    np.savez("held_out.npz", x=examples(8, 4))
    Path("r.toml").write_text(text)
    line = ["prune-channels", "m:model", "--recipe", "r.toml", "--out", "cut.onnx", *more]
    assert cli.run(line) == 1
    assert says in capsys.readouterr().err
    assert not Path("cut.onnx").exists()


def test_a_model_in_the_way_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "cut.onnx")
    before = Path("cut.onnx").read_bytes()
    Path("r.toml").write_text(RECIPE + CUT)
    assert cli.run(["prune-channels", "m:x", "--recipe", "r.toml", "--out", "cut.onnx"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert Path("cut.onnx").read_bytes() == before
