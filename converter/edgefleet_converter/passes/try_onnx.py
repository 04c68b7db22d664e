"""Worker tasks of the search for ONNX: a graph to start from, and int8 candidates of it.

A graph is equalized and watched once; every candidate of it takes its ranges from there.
"""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import EdgefleetError, OperatorError
from edgefleet_converter.arrays import load_tensors, save_tensors
from edgefleet_converter.metrics import relative_err
from edgefleet_converter.passes.equalize_onnx import LINEAR, find_links, rescale
from edgefleet_converter.passes.observe_onnx import all_ranges, channel_peaks
from edgefleet_converter.passes.quantize_onnx import OPERATORS, output_quantum
from edgefleet_converter.passes.slim_onnx import slim
from edgefleet_converter.runners import open_model, run_all
from edgefleet_converter.search.candidate import Operators, Ranges
from edgefleet_converter.search.entry import write_entry

_DENSE: Final = ("Gemm", "MatMul")
_CARRIERS: Final = (
    *("Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Transpose", "Pad", "Squeeze"),
)
_FEW: Final = (Operators.LINEAR, Operators.LINEAR_FLOAT_OUT)
_FLOAT_ENDS: Final = (Operators.FLOAT_OUT, Operators.LINEAR_FLOAT_OUT)
_STRAY: Final = 1e-5


def make_graph(*, alpha: float) -> dict[str, Json]:
    """`graph`, an entry: `model.onnx` equalized with `alpha`, and `ranges.json` of its tensors.

    Says how many layers were rescaled, the linear layers, and which ranges and operators differ.

    Raises:
        OperatorError: there is nothing to quantize, or equalization does not keep the function.
    """
    model = onnx.load("model.onnx")
    arrays = load_tensors(Path("calibration.npz"), "input")
    _name_nodes(model)
    layers = _layers(model)
    if not layers:
        present = sorted({node.op_type for node in model.graph.node})
        raise OperatorError(
            f"nothing to quantize: the operators are {', '.join(present)}",
            hint="take the int8 target out of the recipe; a float32 target works",
        )
    links = _equalize(model, alpha, arrays) if alpha else 0
    said: dict[str, Json] = {"links": links, "layers": list(layers)}
    files = {}
    if links or not alpha:
        names = [name for node in model.graph.node for name in node.output if name]
        weights = {tensor.name for tensor in model.graph.initializer}
        names += [value.name for value in model.graph.input if value.name not in weights]
        ranges = all_ranges(model, names, arrays)
        kinds = {node.op_type for node in model.graph.node}
        said |= {
            "ranges": [one.value for one in _distinct(ranges)],
            "operators": [one.value for one in _operator_sets(kinds)],
            "dynamic": [Operators.ALL.value] if kinds & set(_DENSE) else [],
        }
        files = {
            "model.onnx": model.SerializeToString(),
            "ranges.json": json.dumps(ranges, sort_keys=True).encode(),
        }
    write_entry(Path("graph"), said, files)
    return {}


def make_candidates(*, candidates: list[dict[str, Any]]) -> dict[str, Json]:
    """For each candidate `made.<i>`, an entry: `model` and what it says to `examples.npz`.

    It is loaded and run here for the first time. One that cannot be made says why.
    """
    for index, wanted in enumerate(candidates):
        try:
            said = _make(wanted)
            files = {
                "model": Path("int8.onnx").read_bytes(),
                "outputs.npz": run_made(Path("int8.onnx"), Format.ONNX),
            }
        except Exception as error:  # noqa: BLE001 - a library may raise anything; the rest goes on
            said, files = {"error": reason_of(error)}, {}
        write_entry(Path(f"made.{index}"), said, files)
    return {}


def run_made(path: Path, kind: Format) -> bytes:
    """What a new file says to `examples.npz`, as the bytes of an `.npz`."""
    outputs = run_all(open_model(path, kind), load_tensors(Path("examples.npz"), "input"))
    save_tensors(Path("outputs.npz"), "output", outputs)
    return Path("outputs.npz").read_bytes()


def reason_of(error: Exception) -> str:
    """Why a candidate could not be made, in one line."""
    if isinstance(error, EdgefleetError):
        return error.message
    if isinstance(error, MemoryError):
        return "out of memory"
    traceback.print_exc()
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def _equalize(model: ModelProto, alpha: float, arrays: Any) -> int:
    links = find_links(model)
    if not links:
        return 0
    before = ModelProto()
    before.CopyFrom(model)
    axes = {one.tensor: one.axis for link in links for one in link.consumers}
    done = rescale(model, links, channel_peaks(model, axes, arrays), alpha)
    if not done:
        return 0
    answers = []
    for graph in (before, model):
        onnx.save(graph, "float.onnx")
        answers.append(run_all(open_model(Path("float.onnx"), Format.ONNX), arrays))
    worst = max(relative_err(a, b) for a, b in zip(*answers, strict=True))
    if not worst <= _STRAY:
        raise OperatorError(f"equalized graph strays by {worst:.2g}")
    return done


def _make(wanted: dict[str, Any]) -> dict[str, Json]:
    """`int8.onnx` of a candidate."""
    source = onnx.load("graph.onnx")
    if wanted["is_dynamic"]:
        quantize_dynamic(
            source,
            "int8.onnx",
            op_types_to_quantize=[*_DENSE],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=wanted["floats"],
        )
    else:
        onnx.save(_static(source, wanted), "int8.onnx")
    made = onnx.load("int8.onnx")
    made.ir_version = source.ir_version
    slim(made)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "int8.onnx")
    if not wanted["is_dynamic"] and not any(n.op_type == "QuantizeLinear" for n in made.graph.node):
        raise OperatorError("nothing was quantized")
    return {"quantum": output_quantum(made)}


def _static(model: ModelProto, wanted: dict[str, Any]) -> ModelProto:
    """8-bit activations without and 8-bit weights with a sign, in our own ranges."""
    found = json.loads(Path("ranges.json").read_text("ascii"))[wanted["ranges"]]
    ranges = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in found.items()
    }
    operators = Operators(wanted["operators"])
    present = {node.op_type for node in model.graph.node}
    kinds = [
        name
        for name in ((*LINEAR, *_CARRIERS) if operators in _FEW else OPERATORS)
        if name in present
    ]
    excluded = list(_DENSE) if operators in _FLOAT_ENDS else []
    quantizer = QDQQuantizer(
        model,
        per_channel=not wanted["by_tensor"],
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=wanted["floats"],
        op_types_to_quantize=kinds,
        extra_options={"OpTypesToExcludeOutputQuantization": excluded},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made = quantizer.model.model
    assert isinstance(made, ModelProto)
    return made


def _layers(model: ModelProto) -> tuple[str, ...]:
    """The linear operators with constant weights, by name."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type in LINEAR and set(node.input) & weights
    )


def _name_nodes(model: ModelProto) -> None:
    """Every node gets a name of its own: layers are told apart by them."""
    names: set[str] = set()
    for place, node in enumerate(model.graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{place}"
            while node.name in names:
                node.name += "_"
        names.add(node.name)


def _distinct(ranges: dict[Ranges, dict[str, tuple[float, float]]]) -> list[Ranges]:
    """Those that differ from all before them: few values have no tails to cut."""
    found: list[Ranges] = []
    for one, values in ranges.items():
        if all(values != ranges[other] for other in found):
            found.append(one)
    return found


def _operator_sets(present: set[str]) -> list[Operators]:
    has_more = bool((present & set(OPERATORS)) - {*LINEAR, *_CARRIERS})
    few = [Operators.LINEAR] if has_more else []
    if not present & set(_DENSE):
        return [Operators.ALL, *few]
    few += [Operators.LINEAR_FLOAT_OUT] if has_more else []
    return [Operators.ALL, *few, Operators.FLOAT_OUT]
