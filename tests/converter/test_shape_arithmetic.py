"""TFLite as TensorFlow's converter writes it of Keras: shapes that are reckoned while it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgefleet_contract.bundle import Format
from edgefleet_converter.arrays import save_tensors
from edgefleet_converter.metrics import sqnr_db
from edgefleet_converter.passes.quantize_tflite import Way, quantize_file
from edgefleet_converter.passes.tflite_file import TfliteFile, parse
from edgefleet_converter.passes.tflite_versions import NAMES, version_of
from edgefleet_converter.passes.try_tflite import make_candidates, read_layers
from edgefleet_converter.runners import open_model, run_all
from edgefleet_converter.search.candidate import Candidate
from edgefleet_converter.search.entry import read_entry
from tests.converter.models import examples, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*preserve_all_tensors.*:UserWarning")

Op = schema.BuiltinOperator
INT32, FLOAT = schema.TensorType.INT32, schema.TensorType.FLOAT32
INT8, INT16 = schema.TensorType.INT8, schema.TensorType.INT16


def keras_like(path: Path) -> None:
    """`Flatten`, as it comes: SHAPE, STRIDED_SLICE and PACK reckon what RESHAPE is told."""
    file = TfliteFile()

    def ints(name: str, *values: int) -> int:
        return file.constant(name, np.asarray(values, np.int32))

    x, shape = file.tensor("x", (-1, 8, 1)), file.tensor("shape", (3,), "int32")
    file.operator(Op.SHAPE, [x], [shape], schema.ShapeOptionsT(outType=INT32))
    sizes = []
    for place in range(2):
        sizes.append(file.tensor(f"size{place}", (), "int32"))
        ends = [
            ints(f"begin{place}", place),
            ints(f"end{place}", place + 1),
            ints(f"step{place}", 1),
        ]
        cut = schema.StridedSliceOptionsT(shrinkAxisMask=1)
        file.operator(Op.STRIDED_SLICE, [shape, *ends], [sizes[-1]], cut)
    wanted, flat = file.tensor("wanted", (2,), "int32"), file.tensor("flat", (-1, 8))
    file.operator(Op.PACK, sizes, [wanted], schema.PackOptionsT(valuesCount=2))
    file.operator(Op.RESHAPE, [x, wanted], [flat], schema.ReshapeOptionsT())
    y = file.tensor("y", (-1, 3))
    dense = [flat, file.constant("w", weights(3, 8)), file.constant("b", weights(3))]
    file.operator(Op.FULLY_CONNECTED, dense, [y], schema.FullyConnectedOptionsT())
    file.save(path, {"x": x}, {"y": y})


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(tmp_path)
    save_tensors(Path("calibration.npz"), "input", [examples(32, 8, 1)])
    yield tmp_path
    os.chdir(before)


@pytest.mark.parametrize("way", list(Way))
def test_what_reckons_shapes_is_quantized_and_computes_the_model(way: Way, here: Path) -> None:
    keras_like(Path("model.tflite"))
    x = examples(32, 8, 1)
    (expected,) = run_all(open_model(Path("model.tflite"), Format.TFLITE), (x,))
    quantize_file(Path("model.tflite"), Path("made.tflite"), way=way)
    (found,) = run_all(open_model(Path("made.tflite"), Format.TFLITE), (x,))
    assert sqnr_db(expected, found) > 15
    made = parse(Path("made.tflite").read_bytes())
    found_versions = {NAMES[one.builtinCode]: one.version for one in made.operatorCodes}
    assert {"SHAPE", "STRIDED_SLICE", "PACK"} <= set(found_versions)
    assert {found_versions[name] for name in ("SHAPE", "STRIDED_SLICE", "PACK")} == {1}


def test_a_search_finds_the_layers_of_such_a_model(here: Path) -> None:
    keras_like(Path("model.tflite"))
    read_layers()
    assert read_entry(Path("graph")).said == {
        "layers": ["y;"],
        "operators": ["all"],
        "dynamic": ["all"],
        "has_dense": True,
    }
    Path("model.tflite").rename("graph.tflite")
    save_tensors(Path("examples.npz"), "input", [examples(4, 8, 1)])
    make_candidates(candidates=[Candidate().params()])
    assert "error" not in read_entry(Path("made.0")).said


def slices(**masks: Any) -> schema.OperatorT:
    options = schema.StridedSliceOptionsT(**masks)
    return schema.OperatorT(inputs=[0], outputs=[0], builtinOptions=options)


@pytest.mark.parametrize(
    ("kind", "masks", "version"),
    [
        (FLOAT, {}, 1),
        (INT32, {"shrinkAxisMask": 1}, 1),
        (INT8, {}, 2),
        (INT16, {}, 4),
        (INT8, {"ellipsisMask": 1}, 6),
        (FLOAT, {"newAxisMask": 2}, 6),
        (FLOAT, {"offset": True}, 8),
        (schema.TensorType.STRING, {}, None),
    ],
)
def test_the_version_of_a_slice(kind: int, masks: dict[str, Any], version: int | None) -> None:
    tensors = [schema.TensorT(type=kind, shape=[1, 4])]
    assert version_of(Op.STRIDED_SLICE, slices(**masks), tensors) == version


@pytest.mark.parametrize(("kind", "version"), [(INT32, 1), (FLOAT, 1), (INT8, 2), (INT16, 3)])
def test_the_version_of_a_pack(kind: int, version: int) -> None:
    operator = schema.OperatorT(inputs=[0], outputs=[0])
    assert version_of(Op.PACK, operator, [schema.TensorT(type=kind, shape=[])]) == version
    assert version_of(Op.SHAPE, operator, [schema.TensorT(type=kind, shape=[])]) == 1
