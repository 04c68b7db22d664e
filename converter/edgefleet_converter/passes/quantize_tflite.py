"""int8 TFLite: static quantization by ai-edge-quantizer, inputs and outputs left float32.

Its default calibrator averages ranges and so clips; smallest and largest seen are taken instead. It
writes operator versions of 1 everywhere, with which an older runtime picks a kernel of another type
and computes garbage silently: the versions are stamped afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from ai_edge_quantizer import quantizer, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.utils.qsv_utils import min_max_update

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays, load_tensors
from edgefleet_converter.passes.stamp_tflite import stamp
from edgefleet_converter.passes.tflite_file import SIGNATURE_KEY, parse, serialize

_ALL: Final = ".*"


def quantize() -> dict[str, Json]:
    """`int8.tflite` from `model.tflite` and `calibration.npz`.

    Returns `quantum`: the largest step of an output.
    """
    raw = Path("model.tflite").read_bytes()
    wanted = _recipe()
    qt = quantizer.Quantizer(bytearray(raw), wanted)
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(wanted)
    calibrator = Calibrator(raw, num_threads=1, qsv_update_func=min_max_update)
    examples = _feeds(parse(raw), load_tensors(Path("calibration.npz"), "input"))
    calibrator.calibrate({SIGNATURE_KEY: examples}, manager)
    result = qt.quantize(calibrator.get_model_qsvs(), enable_progress_report=False)
    if result.quantized_model is None:
        raise OperatorError("nothing to quantize")
    model = parse(bytes(result.quantized_model))
    stamp(model, like=parse(raw))
    Path("int8.tflite").write_bytes(serialize(model))
    return {"quantum": output_quantum(model)}


def _recipe() -> Any:
    """8-bit everything but what crosses the border of the model."""
    manager = recipe_manager.RecipeManager()
    manager.add_static_config(
        regex=_ALL,
        operation_name=TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    for border in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        manager.add_quantization_config(_ALL, border, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return manager.get_quantization_recipe()


def _feeds(model: Any, arrays: Arrays) -> list[dict[str, np.ndarray[Any, Any]]]:
    """One feed an example: the calibrator does not resize."""
    names = [entry.name.decode() for entry in model.signatureDefs[0].inputs]
    return [
        {name: array[row : row + 1] for name, array in zip(names, arrays, strict=True)}
        for row in range(len(arrays[0]))
    ]


def output_quantum(model: Any) -> float:
    """The largest scale of what is dequantized into an output."""
    graph = model.subgraphs[0]
    scales = [0.0]
    for operator in graph.operators:
        if set(operator.outputs) & set(graph.outputs):
            for index in operator.inputs:
                quantization = graph.tensors[index].quantization
                if quantization is not None and quantization.scale is not None:
                    scales.append(float(np.max(quantization.scale)))
    return max(scales)
