from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.recipe import Data, Recipe, load_recipe, parse_recipe
from edgefleet_converter.targets import Target

DATA = '[data]\ncalibration = "c.npy"\nheld_out = "h.npz"\n'


def read(text: str = DATA, *overrides: str, folder: Path = Path("/recipes")) -> Recipe:
    return parse_recipe(text, folder=folder, overrides=overrides)


def test_a_recipe_needs_only_its_data() -> None:
    recipe = read()
    assert recipe.targets == (Target.ONNX_INT8, Target.TFLITE_INT8)
    assert recipe.path(recipe.data.calibration) == Path("/recipes/c.npy")
    assert recipe.budget.max_accuracy_drop == 0.02


def test_the_recipe_of_the_demo_is_valid() -> None:
    path = Path(__file__).parents[2] / "demo" / "digits.toml"
    assert load_recipe(path).golden.vectors == 16


def test_every_key_of_a_recipe_is_specified() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "recipe.md").read_text()
    sections = {"data": Data, **{f.name: f.default_factory for f in fields(Recipe)}}
    keys = [
        f"{name}.{field.name}".removesuffix("_")  # prune.lambda
        for name, section in sections.items()
        if is_dataclass(section)
        for field in fields(section)
    ]
    assert len(keys) > 20
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_an_override_beats_the_file_and_keeps_its_type() -> None:
    recipe = read(DATA, "budget.max_accuracy_drop=0.5", "golden.vectors=3", "measure.enabled=false")
    assert recipe.budget.max_accuracy_drop == 0.5
    assert recipe.golden.vectors == 3
    assert recipe.measure.enabled is False


def test_targets_can_be_overridden_by_a_list() -> None:
    assert read(DATA, 'targets=["onnx-float32"]').targets == (Target.ONNX_FLOAT32,)


def test_a_path_on_the_command_line_is_taken_from_the_working_directory() -> None:
    recipe = read(DATA, "data.calibration=here.npy")
    assert recipe.path(recipe.data.calibration) == Path.cwd() / "here.npy"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[data]\ncalibration = 1\nheld_out = 'h'\n", "data.calibration: expected a string"),
        ("[data]\ncalibration = 'c'\n", "field 'held_out' is missing"),
        (DATA + "[budget]\nmax_drop = 1\n", "unknown field 'max_drop'"),
        ("folder = '/etc'\n" + DATA, "unknown field 'folder'"),
        ("targets = []\n" + DATA, "targets: names none"),
        ("targets = ['onnx-int8', 'onnx-int8']\n" + DATA, "targets: names one twice"),
        ("targets = ['onnx-int9']\n" + DATA, "is not one of onnx-int8"),
        (DATA + "[golden]\nvectors = 0\n", "golden.vectors"),
        (DATA + "[limits]\np95_factor = 0.5\n", "limits: factors"),
        (DATA + "[worker]\ntimeout_s = 0\n", "worker.timeout_s"),
        (DATA + "[budget]\nmax_accuracy_drop = 2026-01-01\n", "found a date"),
        ("this is not toml", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_place(text: str, says: str) -> None:
    with pytest.raises(OperatorError) as caught:
        read(text)
    assert says in caught.value.message


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    with pytest.raises(OperatorError) as caught:
        read(DATA + "[budget]\nmax_drop = 1\n")
    assert "max_accuracy_drop" in caught.value.hint


@pytest.mark.parametrize(
    "override", ["golden.vectors", "=3", "golden..vectors=3", "data.labels.x=1"]
)
def test_an_override_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(OperatorError):
        read(DATA + 'labels = "l.txt"\n', override)


def test_a_recipe_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('licence = "Apache License 2.0"', "SPDX"),
        ('description = "\\u001b[2J"', "control characters"),
        (f'limitations = ["{"x" * 16_001}"]', "16000 characters"),
        ('version = "1"', "unknown field 'version'"),
    ],
)
def test_a_card_that_cannot_be_written_is_refused(line: str, says: str) -> None:
    with pytest.raises(OperatorError, match=says):
        parse_recipe(f"{DATA}\n[card]\n{line}\n", folder=Path())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (DATA + "[budgt]\nmax_accuracy_drop = 0.1\n", "did you mean 'budget'?"),
        (DATA + "[budget]\nmax_acuracy_drop = 0.1\n", "did you mean 'max_accuracy_drop'?"),
        (DATA + "[nothing_like_it]\n", "known fields: after"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest_one(text: str, meant: str) -> None:
    with pytest.raises(OperatorError) as caught:
        read(text)
    assert caught.value.hint.startswith(meant)
    assert "folder" not in caught.value.hint
