"""Pruning from end to end: in a build, and swept over lambda on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter import cli, lambda_points
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recipe import parse_recipe
from tests.converter.conftest import CREATED, Digits, build
from tests.converter.models import cnn, examples, save

DATA = '[data]\ncalibration = "calibration.npy"\nheld_out = "held_out.npz"\n'


def made(digits: Digits, key: PrivateKey, out: Path, *overrides: str) -> Built:
    recipe = digits.recipe("measure.enabled=false", *overrides)
    return build(digits.model, recipe, out=out, model="digits", version=2, key=key, created=CREATED)


def zeros(path: Path) -> int:
    """Zeros among the weights of two axes of an ONNX file."""
    graph = onnx.load(path).graph
    arrays = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    return sum(int((array == 0).sum()) for array in arrays if array.ndim == 2)


def test_a_build_prunes_before_it_quantizes_and_says_so(
    digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    found = made(
        digits, key, tmp_path, "prune.lambda=0.0005", 'targets=["onnx-int8","onnx-float32"]'
    )
    told = found.report.prune
    assert told is not None
    assert told.lambda_ == 0.0005
    assert 0 < told.norm0 < told.weights
    assert told.accuracy_before is not None
    assert told.accuracy_before.n == 540
    # the float file has exactly the zeros that are reported, the int8 file at least those
    pruned = told.weights - told.norm0
    assert zeros(found.path / "onnx-float32" / "model.onnx") == pruned
    assert zeros(found.path / "onnx-int8" / "model.onnx") >= pruned
    report = json.loads((found.path / "report.json").read_bytes())
    assert report["prune"]["lambda"] == 0.0005
    origin = json.loads((found.path / "provenance.intoto.json").read_bytes())
    definition = origin["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["recipe"]["prune"]["lambda"] == 0.0005
    # what a variant is judged against is the pruned float model
    assert found.report.variants[0].accuracy_float is not None


def test_tflite_is_made_of_the_pruned_model(
    digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    plain = made(digits, key, tmp_path / "a", 'targets=["tflite-float32"]')
    pruned = made(digits, key, tmp_path / "b", "prune.lambda=0.0005", 'targets=["tflite-float32"]')
    assert pruned.report.variants[0].size_gzip < 0.8 * plain.report.variants[0].size_gzip


def test_the_largest_lambda_inside_a_budget_is_found(
    digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    only = 'targets=["onnx-float32"]'
    strict = made(digits, key, tmp_path / "a", "prune.max_accuracy_drop=0", only).report.prune
    loose = made(digits, key, tmp_path / "b", "prune.max_accuracy_drop=0.05", only).report.prune
    assert strict is not None
    assert loose is not None
    assert loose.lambda_ > strict.lambda_ > 0
    assert loose.norm0 < strict.norm0 < loose.weights
    # the figures are of the half that the choice did not see, and inside the budget there
    assert loose.accuracy_before is not None
    assert loose.accuracy_before.n == 270
    for told, most in ((strict, 0.0), (loose, 0.05)):
        assert told.proof is not None
        assert told.proof.looks >= 1
        for part in (told.proof.chosen, told.proof.proven):
            assert part.accuracy_drop is not None
            assert part.accuracy_drop.value <= most


def test_without_classes_a_budget_has_nothing_to_count(tmp_path: Path) -> None:
    model = cnn()
    model.graph.node[-1].op_type = "Relu"  # no probabilities any more
    del model.graph.node[-1].attribute[:]
    path = save(model, tmp_path, examples(40, 2, 9, 9))
    recipe = parse_recipe(
        DATA, folder=tmp_path, overrides=["prune.max_accuracy_drop=0.1", "measure.enabled=false"]
    )
    with pytest.raises(OperatorError, match="without classes"):
        build(
            path, recipe, out=tmp_path / "o", model="m", version=1, key=PrivateKey.generate_p256()
        )


def test_a_tflite_model_is_not_pruned(built: Built, digits: Digits, tmp_path: Path) -> None:
    recipe = digits.recipe("prune.lambda=0.1", 'targets=["tflite-float32"]')
    source = built.path / "tflite-float32" / "model.tflite"
    with pytest.raises(OperatorError, match="a TFLite model, which is not pruned"):
        build(source, recipe, out=tmp_path, model="m", version=1, key=PrivateKey.generate_p256())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("prune.lambda=-1", "lambda: 0 or more"),
        ("prune.lambda=inf", "lambda: 0 or more"),
        ("prune.lambda=nan", "lambda: 0 or more"),
        ("prune.max_accuracy_drop=2", "max_accuracy_drop: 0 to 1"),
        ("prune={lambda=1, max_accuracy_drop=0.1}", "not both"),
        ("prune.structured.ratio=1.0", "ratio"),
        ("prune.structured.steps=0", "steps"),
        ("prune.structured.max_accuracy_drop=-1", "max_accuracy_drop: 0 to 1"),
        ('prune.structured.finetune="train"', "not module:function"),
        ("prune.l=1", "unknown field 'l'"),
    ],
)
def test_a_wrong_wish_is_refused(override: str, says: str) -> None:
    with pytest.raises(OperatorError, match=says):
        parse_recipe(DATA, folder=Path(), overrides=[override])


def test_a_file_that_is_packed_as_it_is_is_not_pruned() -> None:
    with pytest.raises(OperatorError, match="not pruned"):
        parse_recipe(DATA, folder=Path(), overrides=["prune.lambda=1", 'targets=["onnx-as-is"]'])


def test_a_sweep_tells_what_each_lambda_costs(
    digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = digits.folder / "sweep.toml"
    recipe.write_text(DATA)
    line = ["prune", str(digits.model), "--recipe", str(recipe), "--set", "measure.runs=10"]
    page = tmp_path / "sweep.html"
    line += ["--set", "prune.max_accuracy_drop=0.7", "--report", str(page)]
    assert cli.run([*line, "--lambdas", "1000,0,0.0005", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    none, some, every = found["points"]
    assert [point["lambda"] for point in found["points"]] == [0, 0.0005, 1000]
    assert none["norm0"] == none["weights"] > some["norm0"] > every["norm0"] == 0
    assert [sum(layer["norm0"] for layer in one["layers"]) for one in (none, some, every)] == [
        one["norm0"] for one in (none, some, every)
    ]
    assert none["size_zstd"] > some["size_zstd"] > every["size_zstd"]
    assert none["accuracy"]["value"] > 0.95 > 0.2 > every["accuracy"]["value"]
    # without a weight, the best that biases can do is to know how often each class comes
    assert none["loss"] < some["loss"] < every["loss"]
    assert every["loss"] == pytest.approx(np.log(10), abs=0.1)
    assert none["sqnr_db"] > some["sqnr_db"]
    assert none["measured"]["p50_us"] > 0
    assert found["accuracy"]["value"] > 0.95
    # of the three it is the largest that loses no more than that
    assert found["chosen"] == 0.0005
    assert found["proof"]["looks"] == 1
    assert "\u03bb 0.0005: 70.00 points are allowed: chosen by 270" in page.read_text("utf-8")
    assert found["proof"]["proven"]["accuracy_drop"]["value"] <= 0.7


def test_a_sweep_chooses_its_lambdas_and_prints_a_table(
    digits: Digits, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lambda_points.POINTS == 12
    monkeypatch.setattr(lambda_points, "POINTS", 4)  # they are chosen alike, and take less time
    recipe = digits.folder / "sweep.toml"
    recipe.write_text(DATA)
    line = ["prune", str(digits.model), "--recipe", str(recipe), "--set", "measure.enabled=false"]
    assert cli.run(line) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(rows) == 5  # the float model, and as many lambdas
    cells = [[cell.strip() for cell in row.split("│")[1:-1]] for row in rows]
    assert cells[0][0] == "float"
    assert cells[1][:3] == ["0", cells[0][1], "100.0 %"]
    assert cells[-1][1:3] == ["0", "0.0 %"]
    # with an int8 file that changes decisions, nothing is inside of nothing
    assert cli.run([*line, "--lambdas", "0.001", "--set", "prune.max_accuracy_drop=0"]) == 0
    assert "nothing is inside 0.00 points" in capsys.readouterr().out


@pytest.mark.parametrize("lambdas", ["a", "1,-1", "nan", "inf"])
def test_lambdas_that_are_none_are_refused(
    digits: Digits, lambdas: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = digits.folder / "sweep.toml"
    recipe.write_text(DATA)
    line = ["prune", str(digits.model), "--recipe", str(recipe), "--lambdas", lambdas]
    assert cli.run(line) == 1
    assert "lambdas" in capsys.readouterr().err
