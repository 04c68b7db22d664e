"""Worker tasks of the search for TFLite: a float file to start from, and candidates of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.utils.tfl_flatbuffer_utils import get_op_scope

from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.quantize_tflite import Way, quantize_file
from edgefleet_converter.passes.tflite_file import parse
from edgefleet_converter.passes.try_onnx import reason_of, run_made
from edgefleet_converter.search.entry import write_entry

_Op = schema.BuiltinOperator
_LINEAR: Final = (_Op.CONV_2D, _Op.DEPTHWISE_CONV_2D, _Op.FULLY_CONNECTED, _Op.BATCH_MATMUL)
_ENDS: Final = (_Op.SOFTMAX, _Op.LOGISTIC)  # 8 bits of a probability are most of the noise at times


def read_layers() -> dict[str, Json]:
    """`graph`, an entry that says which operators of `model.tflite` may stay float, by scope.

    Raises:
        OperatorError: there is none.
    """
    model = parse(Path("model.tflite").read_bytes())
    graph = model.subgraphs[0]
    layers: list[Json] = [
        get_op_scope(operator, graph.tensors)
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode in (*_LINEAR, *_ENDS)
    ]
    if not layers:
        raise OperatorError("nothing to quantize: no convolution and no dense layer")
    write_entry(Path("graph"), {"layers": layers}, {})
    return {}


def make_candidates(*, candidates: list[dict[str, Any]]) -> dict[str, Json]:
    """As `try_onnx.make_candidates`, of `graph.tflite` and `calibration.npz`."""
    for index, wanted in enumerate(candidates):
        try:
            quantum = quantize_file(
                Path("graph.tflite"),
                Path("int8.tflite"),
                way=Way.DYNAMIC if wanted["is_dynamic"] else Way.INT8,
                by_tensor=wanted["by_tensor"],
                floats=tuple(wanted["floats"]),
            )
            said: dict[str, Json] = {"quantum": quantum}
            files = {
                "model": Path("int8.tflite").read_bytes(),
                "outputs.npz": run_made(Path("int8.tflite"), Format.TFLITE),
            }
        except Exception as error:  # noqa: BLE001 - a library may raise anything; the rest goes on
            said, files = {"error": reason_of(error)}, {}
        write_entry(Path(f"made.{index}"), said, files)
    return {}
