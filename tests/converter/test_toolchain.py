"""Frameworks in an environment of their own: found, missing, too old; and what is cleaned after."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import helper

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter import cli
from edgefleet_converter.digests import describe
from edgefleet_converter.isolation import run_task
from edgefleet_converter.passes.write_tflite import translate
from edgefleet_converter.pipeline import Built, build
from edgefleet_converter.recipe import Worker, parse_recipe
from edgefleet_converter.sources import exported
from edgefleet_converter.toolchain import VARIABLE, python_of
from tests.converter import models

SAVED = Path(__file__).parents[1] / "vectors" / "sources"
RECIPE = "targets = ['onnx-float32']\n[data]\ncalibration = 'x.npy'\nheld_out = 'x.npy'\n"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real virtual environment that shares our libraries, but for edgefleet."""
    path = tmp_path_factory.mktemp("toolchain") / "venv"
    venv.create(path, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = path / "lib" / version / "site-packages"
    for library in ("onnx", "numpy", "google", "onnxslim", "ml_dtypes", "typing_extensions"):
        module = sys.modules.get(library) or __import__(library)
        origin = Path(
            next(iter(module.__path__)) if hasattr(module, "__path__") else module.__file__
        )
        (site / origin.name).symlink_to(origin)
        libs = origin.with_name(f"{library}.libs")
        if libs.exists():
            (site / libs.name).symlink_to(libs)
    return path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A virtual environment with nothing in it."""
    venv.create(tmp_path / "bare", symlinks=True)
    return tmp_path / "bare"


def build_with(source: Path, toolchain: Path, folder: Path, features: int = 3) -> Built:
    np.save(folder / "x.npy", models.examples(4, features))
    return build(
        source,
        parse_recipe(RECIPE, folder=folder),
        out=folder / "out",
        model="m",
        version=1,
        key=PrivateKey.generate_p256(),
        toolchain=toolchain,
    )


def test_a_worker_of_another_python_runs_this_code_with_its_own_libraries(
    elsewhere: Path, tmp_path: Path
) -> None:
    onnx.save(models.mlp(), tmp_path / "m.onnx")
    says = run_task(
        "read_onnx",
        what="reading",
        limits=Worker(),
        inputs={"source": tmp_path / "m.onnx"},
        python=python_of(elsewhere),
    )
    assert says["inputs"] == ["x"]


def test_what_our_own_environment_says_of_paths_does_not_reach_the_other(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('ours')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(OperatorError, match="ModuleNotFoundError: No module named 'numpy'"):
        run_task("read_onnx", what="reading", limits=Worker(), inputs={}, python=python_of(bare))


@pytest.mark.parametrize(
    ("name", "extra", "library"),
    [
        ("exported.pt2", "converter-torch", "torch"),
        ("model.keras", "converter-tensorflow", "tensorflow"),
        ("saved_model", "converter-tensorflow", "tensorflow"),
        ("xgboost-classes.json", "converter-boost", "xgboost"),
        ("lightgbm-classes.txt", "converter-boost", "lightgbm"),
    ],
)
def test_a_framework_that_is_missing_is_said_with_the_extra_and_the_option(
    name: str, extra: str, library: str, elsewhere: Path, tmp_path: Path
) -> None:
    with pytest.raises(OperatorError, match=f"{library} is not installed") as caught:
        build_with(SAVED / name, elsewhere, tmp_path)
    assert f"pip install 'edgefleet[{extra}]'" in caught.value.hint
    assert "--toolchain" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_onnx_of_a_tflite_file_says_what_it_needs(elsewhere: Path, tmp_path: Path) -> None:
    source = tmp_path / "m.tflite"
    translate(models.mlp(), source)
    with pytest.raises(OperatorError, match="tf2onnx is not installed") as caught:
        build_with(source, elsewhere, tmp_path, features=4)
    assert "converting TFLite to ONNX" in caught.value.message
    assert "pip install 'edgefleet[converter-tensorflow]'" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_toolchain_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="has no Python") as caught:
        python_of(tmp_path)
    assert "python3 -m venv" in caught.value.hint
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(OperatorError, match="does not run"):
        python_of(broken)
    broken.write_text("#!/bin/sh\necho 3 9\n")
    with pytest.raises(OperatorError, match=r"has Python 3\.9, and 3\.11 is the oldest"):
        python_of(broken.rename(tmp_path / "old"))


def test_no_trace_of_where_an_export_was_made_stays_in_it() -> None:
    model = models.mlp(opset=exported.OPSET)
    secret = "/home/somebody/train.py"
    node = model.graph.node[0]
    node.doc_string = secret
    for part in (model, model.graph, node, model.graph.initializer[0], model.graph.input[0]):
        helper.set_model_props(part, {"pkg.torch.onnx.stack_trace": secret})
    inner = helper.make_graph([models.one("Relu", ["a"], "b")], "inner", [], [])
    inner.node[0].doc_string = secret
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner))
    exported.clean(model)
    assert secret.encode() not in model.SerializeToString()


def test_an_exporter_that_writes_another_opset_than_asked_is_caught() -> None:
    with pytest.raises(OperatorError, match="wrote opset 17, and 18 was asked for"):
        exported.clean(models.mlp(opset=17))


def test_a_tensor_that_takes_the_name_of_another_leaves_the_graph_whole(tmp_path: Path) -> None:
    model = models.mlp()
    exported.rename(model.graph, "y", "h")  # a tensor inside has that name
    exported.rename(model.graph, "x", "image")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == ["h"]
    assert [value.name for value in model.graph.input] == ["image"]


@pytest.mark.parametrize(("count", "batch"), [(1, None), (5, None), (70, None), (5, 4), (1, 4)])
def test_every_example_is_answered_once_in_whole_batches(count: int, batch: int | None) -> None:
    seen: list[int] = []

    def double(inputs: exported.Arrays) -> exported.Arrays:
        seen.append(len(inputs[0]))
        return (np.asarray(inputs[0]) * 2,)  # type: ignore[operator]

    examples = np.arange(count, dtype=np.float32).reshape(count, 1)
    (found,) = exported.answer_all(double, (examples,), batch)
    assert found.tolist() == (examples * 2).tolist()
    assert set(seen) == {batch or min(32, max(2, count))}


def test_a_tflite_file_of_a_framework_gets_the_names_of_its_twin(
    built: Built, tmp_path: Path
) -> None:
    run_task(
        "name_tflite",
        what="naming",
        limits=Worker(),
        inputs={"exported.tflite": built.path / "tflite-float32" / "model.tflite"},
        outputs={"model.tflite": tmp_path / "named.tflite"},
        params={"takes": ["pixels"], "gives": ["scores"]},
    )
    interpreter = Interpreter(model_path=str(tmp_path / "named.tflite"))
    assert [one["name"] for one in interpreter.get_input_details()] == ["pixels"]
    assert [one["name"] for one in interpreter.get_output_details()] == ["scores"]
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["pixels"], "outputs": ["scores"]}
    }
    with pytest.raises(OperatorError, match="has 1 tensors where the model has a, b"):
        run_task(
            "name_tflite",
            what="naming",
            limits=Worker(),
            inputs={"exported.tflite": tmp_path / "named.tflite"},
            params={"takes": ["a", "b"], "gives": ["c"]},
        )


def test_the_digest_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    for name, text in (("b/x", "1"), ("a", "22")):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_text(text)
    found = describe(tmp_path / "m")
    assert found.size == 3
    assert describe(tmp_path / "m") == found
    (tmp_path / "m" / "a").rename(tmp_path / "m" / "c")
    assert describe(tmp_path / "m").sha256 != found.sha256


@pytest.mark.parametrize("by", ["option", "variable"])
def test_the_toolchain_is_named_by_the_option_or_by_the_environment(
    by: str,
    elsewhere: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "x.npy", models.examples(4, 3))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    PrivateKey.generate_p256().save(tmp_path / "key.pem")
    command = ["build", str(SAVED / "xgboost-classes.ubj"), "--recipe", f"{tmp_path}/recipe.toml"]
    command += ["--out", f"{tmp_path}/out", "--model", "m", "--version", "1"]
    command += ["--key", f"{tmp_path}/key.pem"]
    wrong = tmp_path / "nowhere"
    if by == "option":
        monkeypatch.setenv(VARIABLE, str(wrong))
        assert cli.run([*command, "--toolchain", str(elsewhere)]) == 1
    else:
        monkeypatch.setenv(VARIABLE, str(elsewhere))
        assert cli.run(command) == 1
    said = capsys.readouterr().err
    assert "xgboost is not installed" in said
    assert "edge-convert: hint: pip install 'edgefleet[converter-boost]'" in said
