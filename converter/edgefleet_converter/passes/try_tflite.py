"""Worker tasks of the search for TFLite: a float file to start from, and candidates of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.utils.tfl_flatbuffer_utils import get_op_scope

from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.quantize_tflite import Way, quantize_file, ranges_of
from edgefleet_converter.passes.read_operators import operators_of
from edgefleet_converter.passes.tflite_file import parse
from edgefleet_converter.passes.try_onnx import reason_of, run_made
from edgefleet_converter.search.candidate import Operators
from edgefleet_converter.search.entry import write_entry

_OP: Final = schema.BuiltinOperator
_MATRIX: Final = frozenset({_OP.CONV_2D, _OP.FULLY_CONNECTED, _OP.BATCH_MATMUL})
_LINEAR: Final = _MATRIX | {_OP.DEPTHWISE_CONV_2D}
_ENDS: Final = (_OP.SOFTMAX, _OP.LOGISTIC)  # 8 bits of a probability are most of the noise at times
_CURVES: Final = frozenset({*_ENDS, _OP.TANH, _OP.HARD_SWISH, _OP.GELU})
_CARRIERS: Final = frozenset({_OP.RESHAPE, _OP.SHAPE, _OP.STRIDED_SLICE, _OP.PACK})


def read_layers() -> dict[str, Json]:
    """`graph`, an entry that says which operators of `model.tflite` may stay float, by scope; and
    which sets of operators differ from one another.

    Raises:
        OperatorError: there is none.
    """
    model = parse(Path("model.tflite").read_bytes())
    graph = model.subgraphs[0]
    codes = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
    layers: list[Json] = [
        get_op_scope(operator, graph.tensors)
        for operator, code in zip(graph.operators, codes, strict=True)
        if code in _LINEAR or code in _ENDS
    ]
    if not layers:
        raise OperatorError("nothing to quantize: no convolution and no dense layer")
    said: dict[str, Json] = {
        "layers": layers,
        "operators": [one.value for one in _operator_sets(set(codes))],
        "dynamic": [one.value for one in _dynamic_sets(set(codes))],
        "has_dense": _OP.FULLY_CONNECTED in codes,
    }
    write_entry(Path("graph"), said, {})
    return {}


def make_candidates(*, candidates: list[dict[str, Any]]) -> dict[str, Json]:
    """As `try_onnx.make_candidates`, of `graph.tflite` and `calibration.npz`.

    Says of each that was made what it asks of a runtime, as `read_operators`.
    """
    ranges = None  # of the graph: they are the same for all candidates
    for index, wanted in enumerate(candidates):
        try:
            if ranges is None and not wanted["is_dynamic"]:
                ranges = ranges_of(Path("graph.tflite"))
            quantum = quantize_file(
                Path("graph.tflite"),
                Path("int8.tflite"),
                way=Way.DYNAMIC if wanted["is_dynamic"] else Way.INT8,
                by_tensor=wanted["by_tensor"],
                floats=tuple(wanted["floats"]),
                operators=Operators(wanted["operators"]),
                ranges=ranges,
            )
            if not _has_int8_layer(parse(Path("int8.tflite").read_bytes())):
                raise OperatorError("nothing was quantized")
            said: dict[str, Json] = {
                "quantum": quantum,
                "needs": operators_of(Path("int8.tflite")),
            }
            files = {
                "model": Path("int8.tflite").read_bytes(),
                "outputs.npz": run_made(Path("int8.tflite"), Format.TFLITE),
            }
        except Exception as error:  # noqa: BLE001 - a library may raise anything; the rest goes on
            said, files = {"error": reason_of(error)}, {}
        write_entry(Path(f"made.{index}"), said, files)
    return {}


def _has_int8_layer(model: Any) -> bool:
    """Whether a linear operator has weights of 8 bits: curves alone make no int8 file."""
    graph = model.subgraphs[0]
    return any(
        graph.tensors[operator.inputs[1]].type == schema.TensorType.INT8
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode in _LINEAR
    )


def _operator_sets(present: set[int]) -> list[Operators]:
    has_curves, has_depthwise = bool(present & _CURVES), _OP.DEPTHWISE_CONV_2D in present
    has_more = bool(present - _LINEAR - _CURVES - _CARRIERS)
    has_both = has_depthwise and bool(present & _MATRIX)
    found = {
        Operators.ALL: True,
        Operators.STRAIGHT: has_curves,
        Operators.LINEAR: has_more,
        Operators.MATRIX: has_both,
        Operators.STRAIGHT_MATRIX: has_both and has_more,
    }
    return [one for one, differs in found.items() if differs]


def _dynamic_sets(present: set[int]) -> list[Operators]:
    """Depthwise convolutions with dynamic ranges are slower than float32 ones."""
    has_both = _OP.DEPTHWISE_CONV_2D in present and bool(present & _MATRIX)
    return [Operators.ALL, *([Operators.MATRIX] if has_both else [])]
