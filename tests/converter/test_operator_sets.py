"""Which kinds of operators a TFLite candidate has in 8 bits, and which it leaves float32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_converter.arrays import save_tensors
from edgefleet_converter.metrics import sqnr_db
from edgefleet_converter.passes.quantize_tflite import Way, quantize_file, ranges_of
from edgefleet_converter.passes.tflite_file import parse
from edgefleet_converter.passes.tflite_versions import NAMES
from edgefleet_converter.passes.try_tflite import make_candidates, read_layers
from edgefleet_converter.passes.write_tflite import translate
from edgefleet_converter.runners import open_model, run_all
from edgefleet_converter.search.candidate import Candidate, Operators
from edgefleet_converter.search.entry import read_entry
from tests.converter.models import examples, graph, one, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*preserve_all_tensors.*:UserWarning")

LINEAR = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
STATIC = [Operators.ALL, Operators.STRAIGHT, Operators.LINEAR, Operators.MATRIX]
STATIC += [Operators.STRAIGHT_MATRIX]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with `graph.tflite`: a convolution, a depthwise one, a curve, a dense layer."""
    nodes = [
        one("Conv", ["x", "w1"], "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        one("HardSwish", ["a"], "b"),
        one("Conv", ["b", "w2"], "c", kernel_shape=[3, 3], group=8),
        one("AveragePool", ["c"], "d", kernel_shape=[2, 2], strides=[2, 2]),
        one("Flatten", ["d"], "e"),
        one("Gemm", ["e", "w3"], "f"),
        one("Softmax", ["f"], "y"),
    ]
    constants = {"w1": weights(8, 1, 3, 3), "w2": weights(8, 1, 3, 3, seed=1)}
    constants["w3"] = weights(72, 4, seed=2)
    model = graph(nodes, shape=["n", 1, 8, 8], gives=["n", 4], constants=constants)
    before = Path.cwd()
    os.chdir(tmp_path)
    translate(model, Path("graph.tflite"))
    save_tensors(Path("calibration.npz"), "input", [examples(16, 1, 8, 8)])
    save_tensors(Path("examples.npz"), "input", [examples(8, 1, 8, 8)])
    yield tmp_path
    os.chdir(before)


def in_8_bits(path: Path) -> set[str]:
    """The kinds that compute with int8: by their weights, or by their inputs without those."""
    model = parse(path.read_bytes())
    tensors = model.subgraphs[0].tensors
    found = set()
    for operator in model.subgraphs[0].operators:
        name = NAMES[model.operatorCodes[operator.opcodeIndex].builtinCode]
        asked = tensors[operator.inputs[1 if name in LINEAR else 0]]
        if asked.type == schema.TensorType.INT8:
            found.add(name)
    return found - {"DEQUANTIZE", "RESHAPE", "TRANSPOSE"}


def test_the_sets_that_differ_are_found(here: Path) -> None:
    Path("graph.tflite").rename("model.tflite")
    read_layers()
    entry = read_entry(Path("graph"))
    assert entry is not None
    assert entry.said["operators"] == [one.value for one in STATIC]
    assert entry.said["dynamic"] == ["all", "matrix"]


@pytest.mark.parametrize("operators", STATIC)
def test_a_set_leaves_what_it_says_in_float32(operators: Operators, here: Path) -> None:
    wanted = set(LINEAR)
    if operators not in (Operators.LINEAR, Operators.MATRIX):
        wanted |= {"AVERAGE_POOL_2D"}
    if operators is Operators.ALL:
        wanted |= {"HARD_SWISH", "SOFTMAX"}
    if operators in (Operators.MATRIX, Operators.STRAIGHT_MATRIX):
        wanted -= {"DEPTHWISE_CONV_2D"}
    source, made = Path("graph.tflite"), Path("made.tflite")
    quantize_file(source, made, operators=operators, ranges=ranges_of(source))
    assert in_8_bits(made) == wanted
    x = examples(8, 1, 8, 8)
    before, after = (run_all(open_model(path, Format.TFLITE), (x,))[0] for path in (source, made))
    assert sqnr_db(before, after) > 20


def test_ranges_that_were_taken_before_give_the_same_bytes(here: Path) -> None:
    source, once, again = Path("graph.tflite"), Path("once.tflite"), Path("again.tflite")
    taken = ranges_of(source)
    for operators in (Operators.LINEAR, Operators.ALL):
        quantize_file(source, once, operators=operators)
        quantize_file(source, again, operators=operators, ranges=taken)
        assert once.read_bytes() == again.read_bytes()


def test_dense_layers_with_dynamic_ranges_have_an_old_kernel_by_tensor(here: Path) -> None:
    found = {}
    for by_tensor in (False, True):
        quantize_file(
            Path("graph.tflite"),
            Path("made.tflite"),
            way=Way.DYNAMIC,
            by_tensor=by_tensor,
            operators=Operators.MATRIX,
        )
        assert in_8_bits(Path("made.tflite")) == {"CONV_2D", "FULLY_CONNECTED"}
        codes = parse(Path("made.tflite").read_bytes()).operatorCodes
        found[by_tensor] = {NAMES[one.builtinCode]: one.version for one in codes}
    assert found[False]["FULLY_CONNECTED"] == 12
    assert found[True]["FULLY_CONNECTED"] <= 9
    assert found[True]["CONV_2D"] == found[False]["CONV_2D"]


def test_a_file_without_an_8_bit_layer_is_no_candidate(here: Path) -> None:
    Path("model.tflite").write_bytes(Path("graph.tflite").read_bytes())
    read_layers()
    entry = read_entry(Path("graph"))
    assert entry is not None
    layers = entry.said["layers"]
    assert isinstance(layers, list)
    ends: list[Json] = [layer for layer in layers if str(layer).startswith("y")]
    assert ends
    floats = tuple(str(layer) for layer in layers if layer not in ends)
    make_candidates(candidates=[Candidate(floats=floats).params(), Candidate().params()])
    first, second = read_entry(Path("made.0")), read_entry(Path("made.1"))
    assert first is not None
    assert second is not None
    assert first.said == {"error": "nothing was quantized"}
    assert second.said["needs"]
    assert np.isfinite(float(str(second.said["quantum"])))
