from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import helper, numpy_helper

from edgefleet_contract.bundle import Format, Role, parse_manifest
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_converter import metrics
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recipe import Recipe, parse_recipe
from edgefleet_converter.runners import open_model, run_all
from tests.converter import models
from tests.converter.conftest import CREATED, Digits, build

ONE_TARGET = """
targets = ["{target}"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[measure]
enabled = false
"""


def recipe_for(folder: Path, target: str = "onnx-int8", *overrides: str) -> Recipe:
    return parse_recipe(ONE_TARGET.format(target=target), folder=folder, overrides=overrides)


def try_build(source: Path, recipe: Recipe, out: Path, key: PrivateKey, **more: object) -> Built:
    given: dict[str, object] = {"model": "m", "version": 1, "created": CREATED, **more}
    return build(source, recipe, out=out, key=key, **given)  # type: ignore[arg-type]  # test shorthand


def refused(
    source: Path, recipe: Recipe, out: Path, key: PrivateKey, **more: object
) -> OperatorError:
    """The error of a build that must fail, having left nothing in the output folder."""
    with pytest.raises(OperatorError) as caught:
        try_build(source, recipe, out, key, **more)
    assert not out.exists() or list(out.iterdir()) == []
    return caught.value


@pytest.fixture
def onnx_source(built: Built) -> Path:
    """The digits as a float ONNX file: quicker to read than the estimator."""
    return built.path / "onnx-float32" / "model.onnx"


# What comes out


def test_the_bundle_verifies_with_the_publishers_key(built: Built, ring: KeyRing) -> None:
    assert verify_directory(built.path, ring).manifest == built.manifest
    assert built.path.name == "digits-1"


def test_a_stranger_verifies_it_with_the_tool_of_the_format(
    built: Built, key: PrivateKey, tmp_path: Path
) -> None:
    public = tmp_path / "publisher.pub"
    public.write_text(key.public.pem)
    tool = Path(sys.executable).with_name("model_signing")
    command = [tool, "verify", "key", "--public_key", public, "--signature"]
    said = subprocess.run(
        [*command, built.path / "model.sig", built.path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    (copy := tmp_path / "copy").mkdir()
    shutil.copytree(built.path, copy, dirs_exist_ok=True)
    (copy / "labels.txt").write_text("0\n")
    said = subprocess.run(
        [*command, copy / "model.sig", copy], capture_output=True, text=True, check=False
    )
    assert said.returncode != 0


def test_variants_stand_in_the_order_of_the_recipe_with_their_runtimes(built: Built) -> None:
    names = [variant.name for variant in built.manifest.variants]
    assert names == ["onnx-int8", "tflite-int8", "onnx-float32", "tflite-float32"]
    for variant in built.manifest.variants:
        is_onnx = variant.format is Format.ONNX
        assert set(variant.runtimes) == (
            {"onnxruntime"} if is_onnx else {"litert", "tflite-runtime"}
        )
        assert [spec.shape for spec in variant.inputs] == [(-1, 64)]
        assert [spec.shape for spec in variant.outputs] == [(-1, 10)]
        assert {spec.dtype for spec in (*variant.inputs, *variant.outputs)} == {"float32"}


def test_int8_keeps_the_accuracy_of_float(built: Built) -> None:
    for told in built.report.variants:
        assert told.accuracy_float is not None
        assert told.accuracy is not None
        assert told.agreement is not None
        assert told.accuracy_float.value >= 0.96
        assert told.accuracy.value >= 0.95
        assert told.accuracy.low < told.accuracy.value < told.accuracy.high
        assert told.agreement.value >= 0.98
        assert told.sqnr_db > 25


def test_float_copies_match_the_estimator(built: Built) -> None:
    assert set(built.report.parity) == {"onnx-float32", "tflite-float32"}
    assert all(error < 1e-5 for error in built.report.parity.values())


def test_int8_is_smaller(built: Built) -> None:
    size = {told.name: told.size for told in built.report.variants}
    assert size["onnx-int8"] < 0.6 * size["onnx-float32"]
    assert size["tflite-int8"] < 0.6 * size["tflite-float32"]


@pytest.mark.parametrize("rows", [1, 32])
def test_each_variant_reproduces_its_golden_vectors_in_any_batch(
    built: Built, digits: Digits, rows: int
) -> None:
    held_out = np.load(digits.folder / "held_out.npz")
    for variant in built.manifest.variants:
        golden = built.path / variant.golden
        (inputs,) = load_tensors(golden, "input")
        (expected,) = load_tensors(golden, "output")
        assert len(inputs) == 16
        assert len(set(expected.argmax(axis=1).tolist())) == 10, "every class is among them"
        runner = open_model(built.path / variant.model, variant.format)
        many = np.concatenate([inputs, held_out["x"][:16]])
        (found,) = zip(
            *[runner.infer((many[i : i + rows],)) for i in range(0, 32, rows)], strict=True
        )
        gap = metrics.max_abs_err(expected, np.concatenate(found)[:16])
        assert gap <= variant.max_abs_err_e6 / 1e6, variant.name


def test_no_golden_vector_is_an_example_unless_examples_are_asked_for(
    built: Built, digits: Digits, key: PrivateKey, onnx_source: Path, tmp_path: Path
) -> None:
    held_out = np.load(digits.folder / "held_out.npz")["x"]
    wish = digits.recipe(
        "targets=['onnx-int8']", "measure.enabled=false", 'golden.inputs="held-out"'
    )
    raw = try_build(onnx_source, wish, tmp_path / "out", key)
    for made, word in ((built, "drawn"), (raw, "held-out")):
        for variant, told in zip(made.manifest.variants, made.report.variants, strict=True):
            (inputs,) = load_tensors(made.path / variant.golden, "input")
            nearest = np.linalg.norm(inputs[:, None] - held_out[None], axis=2).min(axis=1)
            assert told.golden_inputs == word
            assert nearest.min() > 1 if word == "drawn" else nearest.max() == 0


def test_a_tolerance_is_one_quantum_for_int8_and_far_less_for_float(built: Built) -> None:
    tolerance = {variant.name: variant.max_abs_err_e6 for variant in built.manifest.variants}
    assert 3907 <= tolerance["onnx-int8"] <= 4000
    assert 3907 <= tolerance["tflite-int8"] <= 4000
    assert tolerance["onnx-float32"] <= 20
    assert tolerance["tflite-float32"] <= 20


def test_the_oldest_named_runtime_knows_the_files_opset_and_ir(built: Built) -> None:
    for name in ("onnx-int8", "onnx-float32"):
        model = onnx.load(built.path / name / "model.onnx")
        assert model.ir_version <= 10
        assert all(entry.version <= 21 for entry in model.opset_import)


def test_int8_onnx_multiplies_unsigned_by_signed_per_channel(built: Built) -> None:
    model = onnx.load(built.path / "onnx-int8" / "model.onnx")
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    points = [arrays[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert points
    assert all(point.dtype == np.uint8 for point in points)
    weights = [a for a in arrays.values() if a.dtype == np.int8 and a.ndim == 2]
    scales = [a for a in arrays.values() if a.dtype == np.float32 and a.ndim == 1 and a.size > 1]
    assert len(weights) == 2
    assert sorted(scale.size for scale in scales if scale.size in (10, 64))[:1] == [10]


def test_limits_are_signed_for_the_measured_hardware_only(built: Built) -> None:
    for variant, told in zip(built.manifest.variants, built.report.variants, strict=True):
        assert told.measured is not None
        assert list(variant.limits) == [told.measured.hardware]
        limits = variant.limits[told.measured.hardware]
        assert limits.p95_us >= max(100_000, 20 * told.measured.p95_us - 1)
        assert limits.load_ms >= max(5000, 10 * told.measured.load_ms - 1)
        assert limits.ram_mib >= 256


def test_labels_report_and_papers_travel_with_the_models(built: Built) -> None:
    assert built.manifest.labels == "labels.txt"
    assert (built.path / "labels.txt").read_text().split() == [str(n) for n in range(10)]
    roles = sorted(file.role for file in built.manifest.files)
    single = [Role.LABELS, Role.REPORT, Role.SBOM, Role.PROVENANCE]
    each = [Role.MODEL, Role.GOLDEN, Role.DRIFT]
    assert roles == sorted([*each * 4, *single])


def test_labels_come_from_the_estimator_when_the_recipe_gives_none(
    built: Built, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    made = try_build(digits.model, recipe_for(digits.folder), tmp_path, key, cache=None)
    assert (made.path / "labels.txt").read_text().split() == [str(n) for n in range(10)]
    for name in ("model.onnx", "golden.npz"):  # from a skops file, too, the same bytes each time
        again = (made.path / "onnx-int8" / name).read_bytes()
        assert again == (built.path / "onnx-int8" / name).read_bytes()


def test_two_builds_of_one_input_differ_in_the_signature_only(
    onnx_source: Path, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    recipe = digits.recipe("measure.enabled=false", 'targets=["onnx-int8", "tflite-int8"]')
    folders = [
        build(
            onnx_source,
            recipe,
            out=tmp_path / name,
            model="d",
            version=1,
            key=key,
            created=CREATED,
            cache=None,
        ).path
        for name in ("a", "b")
    ]
    files = sorted(p.relative_to(folders[0]) for p in folders[0].rglob("*") if p.is_file())
    assert len(files) == 12
    for name in files:
        same = (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
        assert same or name == Path("model.sig"), name
    assert parse_manifest((folders[0] / "bundle.json").read_bytes()).variants[0].limits == {}


# ONNX and TFLite as sources


def test_an_onnx_of_images_becomes_int8_of_both_formats(key: PrivateKey, tmp_path: Path) -> None:
    source = models.save(models.cnn(), tmp_path, models.examples(64, 2, 9, 9))
    recipe = recipe_for(tmp_path, "onnx-int8", 'targets=["onnx-int8","tflite-int8"]')
    made = try_build(source, recipe, tmp_path / "out", key)
    assert max(made.report.parity.values()) < 1e-5
    for variant, told in zip(made.manifest.variants, made.report.variants, strict=True):
        assert told.sqnr_db > 25, variant.name
        assert variant.inputs[0].shape == (-1, 2, 9, 9)
        runner = open_model(made.path / variant.model, variant.format)
        (inputs,) = load_tensors(made.path / variant.golden, "input")
        (one_by_one,) = zip(*[runner.infer((inputs[i : i + 1],)) for i in range(16)], strict=True)
        (at_once,) = run_all(runner, (inputs,))
        assert metrics.max_abs_err(np.concatenate(one_by_one), at_once) <= 1e-5


def test_a_finished_tflite_is_packed_byte_for_byte(
    built: Built, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    source = built.path / "tflite-int8" / "model.tflite"
    made = try_build(source, recipe_for(digits.folder, "tflite-int8"), tmp_path, key)
    assert (made.path / "tflite-int8" / "model.tflite").read_bytes() == source.read_bytes()


def test_several_inputs_are_matched_by_name(key: PrivateKey, tmp_path: Path) -> None:
    model = models.graph(
        [
            models.one("Gemm", ["x", "w"], "a"),
            models.one("Sub", ["a", "z"], "b"),
            models.one("Tanh", ["b"], "y"),
        ],
        shape=["batch", 3],
        gives=["batch", 2],
        constants={"w": models.weights(3, 2, scale=1.0)},
    )
    model.graph.input.append(helper.make_tensor_value_info("z", models.FLOAT, ["batch", 2]))
    onnx.save(model, tmp_path / "model.onnx")
    arrays = {"z": models.examples(40, 2, seed=1), "x": models.examples(40, 3, seed=2)}
    np.savez(tmp_path / "held_out.npz", **arrays)
    np.savez(tmp_path / "calibration.npz", **arrays)
    recipe = recipe_for(tmp_path, "tflite-int8", f"data.calibration={tmp_path}/calibration.npz")
    made = try_build(tmp_path / "model.onnx", recipe, tmp_path / "out", key)
    assert [spec.name for spec in made.manifest.variants[0].inputs] == ["x", "z"]
    assert min(told.sqnr_db for told in made.report.variants) > 20

    np.savez(tmp_path / "held_out.npz", x=arrays["x"], other=arrays["z"])
    error = refused(tmp_path / "model.onnx", recipe, tmp_path / "none", key)
    assert "the model takes x, z" in error.message


# What is refused


def test_a_truncated_onnx_is_refused(key: PrivateKey, tmp_path: Path) -> None:
    source = models.save(models.mlp(), tmp_path, models.examples(20, 4))
    source.write_bytes(source.read_bytes()[:-40])
    error = refused(source, recipe_for(tmp_path), tmp_path / "out", key)
    assert "not a readable ONNX model" in error.message or "not valid" in error.message


def test_a_file_that_is_no_model_is_refused(key: PrivateKey, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(np.random.default_rng(5).bytes(4096))
    error = refused(source, recipe_for(tmp_path), tmp_path / "out", key)
    assert "not a model that is known here" in error.message


def test_an_operator_that_tflite_lacks_is_named_with_its_node(
    key: PrivateKey, tmp_path: Path
) -> None:
    model = models.graph(
        [models.one("Gemm", ["x", "w"], "a"), models.one("Erf", ["a"])],
        shape=["batch", 4],
        gives=["batch", 3],
        constants={"w": models.weights(4, 3)},
    )
    source = models.save(model, tmp_path, models.examples(20, 4))
    error = refused(source, recipe_for(tmp_path, "tflite-int8"), tmp_path / "out", key)
    assert "Erf (Erf_y)" in error.message
    assert "take the tflite targets out" in error.hint
    assert try_build(source, recipe_for(tmp_path), tmp_path / "out", key).path.is_dir()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def test_a_tflite_with_an_operator_of_tensorflow_names_it(
    built: Built, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    raw = (built.path / "tflite-float32" / "model.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(raw, 0))
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"FlexErfinv"
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "flex.tflite").write_bytes(builder.Output())
    error = refused(
        tmp_path / "flex.tflite", recipe_for(digits.folder, "tflite-as-is"), tmp_path / "out", key
    )
    assert "node 0 is FlexErfinv, an operator of TensorFlow" in error.message
    assert "SELECT_TF_OPS" in error.hint


def test_a_pickle_is_refused_unless_trusted_and_never_loaded_before(
    digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    source = tmp_path / "model.onnx"  # the name does not matter
    source.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    error = refused(source, recipe_for(digits.folder), tmp_path / "out", key)
    assert "loading a pickle runs whatever code is in it" in error.message
    assert not (tmp_path / "sprung").exists()


@pytest.fixture(scope="module")
def strangers(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits as `model.joblib`, and a `strange.skops` that holds a function."""
    folder = tmp_path_factory.mktemp("strangers")
    script = (
        "import os, sys, joblib, skops.io as s; m, folder = sys.argv[1:];"
        "from sklearn.preprocessing import FunctionTransformer as F;"
        "model = s.load(m, trusted=s.get_untrusted_types(file=m));"
        "joblib.dump(model, folder + '/model.joblib', compress=3);"
        "s.dump(F(os.getcwd), folder + '/strange.skops')"
    )
    subprocess.run([sys.executable, "-c", script, digits.model, folder], check=True)
    return folder


def test_a_trusted_joblib_file_comes_in(
    strangers: Path, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    recipe, source = recipe_for(digits.folder, "onnx-float32"), strangers / "model.joblib"
    made = try_build(source, recipe, tmp_path / "out", key, trust_pickle=True)
    assert made.report.parity["onnx-float32"] < 1e-5


def test_a_skops_file_with_a_strange_type_is_refused_by_name(
    strangers: Path, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    source = strangers / "strange.skops"
    error = refused(source, recipe_for(digits.folder), tmp_path / "out", key)
    assert "posix.getcwd" in error.message
    assert "trusted_types" in error.hint


def test_a_model_that_answers_nan_is_refused(key: PrivateKey, tmp_path: Path) -> None:
    model = models.graph(
        [models.one("Gemm", ["x", "w"], "a"), models.one("Log", ["a"])],
        shape=["batch", 4],
        gives=["batch", 3],
        constants={"w": models.weights(4, 3)},
    )
    source = models.save(model, tmp_path, models.examples(20, 4))
    error = refused(source, recipe_for(tmp_path), tmp_path / "out", key)
    assert "NaN or infinite" in error.message


def test_a_missing_model_is_said_plainly(key: PrivateKey, tmp_path: Path) -> None:
    error = refused(tmp_path / "none.onnx", recipe_for(tmp_path), tmp_path / "out", key)
    assert "cannot read the model" in error.message


@pytest.mark.parametrize("file", ["calibration.npy", "held_out.npz"])
def test_missing_data_is_said_plainly(key: PrivateKey, tmp_path: Path, file: str) -> None:
    source = models.save(models.mlp(), tmp_path, models.examples(20, 4))
    (tmp_path / file).unlink()
    error = refused(source, recipe_for(tmp_path), tmp_path / "out", key)
    assert "cannot read the" in error.message
    assert file in error.message


def test_calibration_data_of_the_wrong_shape_is_refused_with_both_shapes(
    key: PrivateKey, tmp_path: Path
) -> None:
    source = models.save(models.mlp(), tmp_path, models.examples(20, 4))
    np.save(tmp_path / "calibration.npy", models.examples(20, 5))
    error = refused(source, recipe_for(tmp_path), tmp_path / "out", key)
    assert error.message == "calibration data: input 'x' takes [-1, 4], the data has [20, 5]"


def test_calibration_data_of_another_type_is_refused(key: PrivateKey, tmp_path: Path) -> None:
    source = models.save(models.mlp(), tmp_path, models.examples(20, 4))
    np.save(tmp_path / "calibration.npy", models.examples(20, 4).astype(np.float64))
    error = refused(source, recipe_for(tmp_path), tmp_path / "out", key)
    assert "takes float32, the data has float64" in error.message


def test_truth_that_the_model_cannot_say_is_refused(key: PrivateKey, tmp_path: Path) -> None:
    source = models.save(models.mlp(), tmp_path, models.examples(20, 4))
    np.savez(tmp_path / "held_out.npz", x=models.examples(20, 4), y=np.arange(20))
    error = refused(source, recipe_for(tmp_path), tmp_path / "out", key)
    assert "classes 0 to 19, the model has 0 to 2" in error.message


def test_a_variant_over_the_budget_is_not_built(
    onnx_source: Path, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    recipe = recipe_for(digits.folder, "onnx-int8", "budget.min_sqnr_db=90")
    error = refused(onnx_source, recipe, tmp_path / "out", key)
    assert "onnx-int8: SQNR is" in error.message


def test_calibration_that_looks_like_nothing_real_costs_more_than_the_budget(
    onnx_source: Path, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    np.save(tmp_path / "dark.npy", np.load(digits.folder / "calibration.npy") * np.float32(0.02))
    recipe = recipe_for(
        digits.folder, "onnx-int8", f"data.calibration={tmp_path}/dark.npy", "budget.min_sqnr_db=0"
    )
    error = refused(onnx_source, recipe, tmp_path / "out", key)
    assert "accuracy drops by" in error.message


def test_an_existing_bundle_is_never_overwritten(
    built: Built, digits: Digits, key: PrivateKey
) -> None:
    before = (built.path / "bundle.json").read_bytes()
    with pytest.raises(OperatorError, match="exists already") as caught:
        build(
            digits.model, digits.recipe(), out=built.path.parent, model="digits", version=1, key=key
        )
    assert "next --version" in caught.value.hint
    assert (built.path / "bundle.json").read_bytes() == before


def test_names_versions_and_keys_are_checked_before_any_work(
    digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    recipe, out = digits.recipe(), tmp_path / "out"
    assert "cannot name a model" in refused(digits.model, recipe, out, key, model="../up").message
    assert "lowest is 1" in refused(digits.model, recipe, out, key, version=0).message
    late = refused(digits.model, recipe, out, key, created=10**12)
    assert "seconds since 1970" in late.message
    wrong = PrivateKey.generate_ed25519()
    assert "needs ECDSA" in refused(digits.model, recipe, out, wrong).message


def test_labels_must_be_as_many_as_the_outputs(
    onnx_source: Path, digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("zero\none\n")
    recipe = digits.recipe(f"data.labels={tmp_path}/labels.txt")
    error = refused(onnx_source, recipe, tmp_path / "out", key)
    assert "2 labels of" in error.message
