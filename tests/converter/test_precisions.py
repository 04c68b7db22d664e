"""The precisions beside int8: what each pass makes, and what the runtimes of devices say to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import ModelProto, TensorProto, numpy_helper

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.arrays import load_tensors, save_tensors
from edgefleet_converter.fitting import Needs, Operator, fit
from edgefleet_converter.golden import output_quantum
from edgefleet_converter.metrics import sqnr_db
from edgefleet_converter.passes import make_onnx, quantize_tflite
from edgefleet_converter.passes.four_bits import quantize_blocks
from edgefleet_converter.passes.tflite_file import parse
from edgefleet_converter.passes.write_tflite import translate
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.runners import Kernels, open_model, run_all
from edgefleet_converter.targets import Precision, Target
from edgefleet_converter.variants import RUNTIMES
from tests.converter import models
from tests.converter.conftest import CREATED

# ai-edge-quantizer looks at every tensor while it calibrates, and LiteRT advises against it.
pytestmark = pytest.mark.filterwarnings("ignore:.*preserve_all_tensors.*:UserWarning")

OTHERS = [one for one in Precision if one is not Precision.FLOAT32]
NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items()}
MODELS = {"mlp": (models.mlp, (4,)), "cnn": (models.cnn, (2, 9, 9))}
LEAST_DB = {"float16": 60, "int16x8": 40, "int8": 25, "dynamic": 35, "int4": 15}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def made(name: str, kind: Format, way: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """The file, the examples, and what the float model says to them."""
    make, shape = MODELS[name]
    x = models.examples(64, *shape)
    save_tensors(Path("calibration.npz"), "input", [x])
    onnx.save(make(), "model.onnx")
    if kind is Format.TFLITE:
        translate(make(), Path("model.tflite"))
    (expected,) = run_all(open_model(Path(f"model.{kind}"), kind), (x,))
    (make_onnx if kind is Format.ONNX else quantize_tflite).make(way=way)
    return Path(f"made.{kind}"), x, expected


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize("way", OTHERS)
@pytest.mark.parametrize("name", MODELS)
def test_each_precision_computes_the_model_whatever_the_kernels(
    name: str, way: str, kind: Format, here: Path
) -> None:
    path, x, expected = made(name, kind, way)
    runner = open_model(path, kind)
    assert {spec.dtype for spec in (*runner.inputs, *runner.outputs)} == {"float32"}
    (found,) = run_all(runner, (x,))
    assert sqnr_db(expected, found) > LEAST_DB[way]
    (plain,) = run_all(open_model(path, kind, Kernels.PLAIN), (x,))
    is_float = way in ("float16", "int4")
    quantum = 1e-5 if is_float else output_quantum((found,), 0.0, Precision(way).levels)
    typical = float(np.median(np.abs(found - plain).reshape(len(x), -1).max(axis=1)))
    assert typical <= quantum
    (one,) = run_all(runner, (x[:1],))
    assert np.abs(one - found[:1]).max() <= 1e-6, "no answer depends on its neighbours"


def test_float16_halves_the_weights_and_leaves_large_ones(here: Path) -> None:
    model = models.mlp()
    for tensor in model.graph.initializer:
        if tensor.name == "w2":
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0] = 1e5
            tensor.CopyFrom(numpy_helper.from_array(values, "w2"))
    onnx.save(model, "model.onnx")
    make_onnx.make(way="float16")
    kinds = {t.name: t.data_type for t in onnx.load("made.onnx").graph.initializer}
    assert kinds["w1.float16"] == TensorProto.FLOAT16
    assert kinds["w2"] == TensorProto.FLOAT


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_int4_multiplies_from_four_bits_and_folds_convolutions(here: Path) -> None:
    path, _, _ = made("cnn", Format.ONNX, "int4")
    model = onnx.load(path)
    assert "MatMulNBits" in operators(model)
    assert "Conv" in operators(model)
    assert "DequantizeLinear" not in operators(model), "onnxruntime would run it at each inference"
    (node,) = [one for one in model.graph.node if one.op_type == "MatMulNBits"]
    level = next(one.i for one in node.attribute if one.name == "accuracy_level")
    assert level == 1, "activations are not rounded"


def test_names_that_are_taken_are_left_alone(here: Path) -> None:
    model = models.mlp()
    model.graph.node[0].input[2] = "a.bias"
    for tensor in model.graph.initializer:
        tensor.name = "a.bias" if tensor.name == "b1" else tensor.name
    onnx.save(model, "model.onnx")
    make_onnx.make(way="int4")
    assert "MatMulNBits" in operators(onnx.load("made.onnx"))


def test_a_block_is_within_half_a_step_of_its_values() -> None:
    blocks = models.examples(5, 3, 32)
    values, scales = quantize_blocks(blocks)
    assert values.min() >= -8
    assert values.max() <= 7
    error = np.abs(blocks - values * scales[..., None])
    inside = (blocks / scales[..., None] >= -8.5) & (blocks / scales[..., None] <= 7.5)
    assert (error[inside] <= np.abs(scales).max() / 2 + 1e-6).all()
    plain = np.abs(blocks).max(axis=-1, keepdims=True) / 7
    usual = blocks - np.rint(blocks / plain) * plain
    assert (error**2).sum() < (usual**2).sum()


def test_dense_layers_of_int16_are_not_joined_with_their_weights(here: Path) -> None:
    path, x, _ = made("cnn", Format.ONNX, "int16x8")
    names = operators(onnx.load(path))
    assert "Gemm" not in names
    assert "MatMul" in names
    answers = [
        run_all(open_model(path, Format.ONNX, kernels), (x,))[0]
        for kernels in (Kernels.DEFAULT, Kernels.PLAIN)
    ]
    assert np.abs(answers[0] - answers[1]).max() < 1e-4


def test_dynamic_onnx_takes_one_example(here: Path) -> None:
    path, _, _ = made("mlp", Format.ONNX, "dynamic")
    assert open_model(path, Format.ONNX).inputs[0].shape == (1, 4)


@pytest.mark.parametrize("way", ["float16", "int4", "dynamic"])
def test_a_model_without_layers_has_no_other_precision(way: str, here: Path) -> None:
    onnx.save(models.graph([models.one("Tanh")], shape=["n", 3], gives=["n", 3]), "model.onnx")
    with pytest.raises(OperatorError, match=r"no convolution|no dense layer"):
        make_onnx.make(way=way)


@pytest.mark.parametrize(
    ("way", "expected", "is_old_named"),
    [
        ("float16", {"DEQUANTIZE": 3, "FULLY_CONNECTED": 1}, True),
        ("int16x8", {"QUANTIZE": 2, "FULLY_CONNECTED": 7, "DEQUANTIZE": 3}, True),
        ("dynamic", {"FULLY_CONNECTED": 12}, False),
        ("int4", {"DEQUANTIZE": 6, "FULLY_CONNECTED": 1}, False),
    ],
)
def test_operators_have_the_versions_that_know_their_types(
    way: str, expected: dict[str, int], is_old_named: bool, here: Path
) -> None:
    path, _, _ = made("mlp", Format.TFLITE, way)
    found = {NAMES[c.builtinCode]: c.version for c in parse(path.read_bytes()).operatorCodes}
    assert {name: found[name] for name in expected} == expected
    needs = Needs(tuple(Operator(name, name, version) for name, version in found.items()))
    named = fit(Format.TFLITE, needs, RUNTIMES[Format.TFLITE], {}, what=way).runtimes
    assert ("tflite-runtime" in named) is is_old_named


def test_precisions_by_target() -> None:
    assert {one.precision for one in Target} == {*Precision, None}
    assert [one for one in Target if one.needs_calibration] == [
        *(Target.ONNX_INT8, Target.TFLITE_INT8, Target.ONNX_INT16X8, Target.TFLITE_INT16X8)
    ]


def test_a_bundle_of_other_precisions_needs_no_calibration(tmp_path: Path, key: PrivateKey) -> None:
    x = models.examples(48, 4)
    source = models.save(models.mlp(), tmp_path, x)
    text = (
        'targets = ["onnx-dynamic", "tflite-int4"]\n[data]\nheld_out = "held_out.npz"\n'
        "[budget]\nmax_accuracy_drop = 0.2\n[measure]\nenabled = false\n"
    )
    recipe = parse_recipe(text, folder=tmp_path)
    built = build(
        source, recipe, out=tmp_path / "o", model="m", version=1, key=key, created=CREATED
    )
    dynamic, four = built.manifest.variants
    assert (dynamic.precision, four.precision) == ("dynamic", "int4")
    assert dynamic.inputs[0].shape == (1, 4)
    assert dynamic.runtimes == {"onnxruntime": "1.19.0"}
    assert four.runtimes == {"litert": "2.0.0"}
    assert four.max_abs_err_e6 == 11, "computed in float32, and held to it"
    (outputs,) = load_tensors(built.path / four.golden, "output")
    assert len(outputs) == 16
