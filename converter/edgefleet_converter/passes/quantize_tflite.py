"""int8 TFLite: static quantization by ai-edge-quantizer, inputs and outputs left float32.

Its default calibrator averages ranges and so clips; smallest and largest seen are taken instead. It
writes operator versions of 1 everywhere, with which an older runtime picks a kernel of another type
and computes garbage silently: the versions are stamped afterwards.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from ai_edge_quantizer import quantizer, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName
from ai_edge_quantizer.utils.qsv_utils import min_max_update

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays, load_tensors
from edgefleet_converter.passes.stamp_tflite import stamp
from edgefleet_converter.passes.tflite_file import SIGNATURE_KEY, parse, serialize

_ALL: Final = ".*"
_TENSOR: Final = QuantGranularity.TENSORWISE
_CHANNEL: Final = QuantGranularity.CHANNELWISE


def quantize() -> dict[str, Json]:
    """`int8.tflite` from `model.tflite` and `calibration.npz`.

    Returns `quantum`: the largest step of an output.
    """
    return {"quantum": quantize_file(Path("model.tflite"), Path("int8.tflite"))}


def quantize_file(
    source: Path,
    made: Path,
    *,
    is_dynamic: bool = False,
    by_tensor: bool = False,
    floats: tuple[str, ...] = (),
) -> float:
    """Write the int8 file; the largest step of an output.

    Args:
        source: the float file; static ranges are taken from `calibration.npz` beside it.
        made: where it goes.
        is_dynamic: only weights are 8-bit in the file, ranges are taken at each inference.
        by_tensor: weights have one scale a tensor, not one a channel.
        floats: scopes of the operators that stay float32.
    """
    raw = source.read_bytes()
    wanted = _recipe(is_dynamic=is_dynamic, by_tensor=by_tensor, floats=floats)
    qt = quantizer.Quantizer(bytearray(raw), wanted)
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(wanted)
    ranges = None
    if not is_dynamic:
        calibrator = Calibrator(raw, num_threads=1, qsv_update_func=min_max_update)
        examples = _feeds(parse(raw), load_tensors(Path("calibration.npz"), "input"))
        calibrator.calibrate({SIGNATURE_KEY: examples}, manager)
        ranges = calibrator.get_model_qsvs()
    result = qt.quantize(ranges, enable_progress_report=False)
    if result.quantized_model is None:
        raise OperatorError("nothing to quantize")
    model = parse(bytes(result.quantized_model))
    stamp(model, like=parse(raw))
    _shorten(model)
    made.write_bytes(serialize(model))
    return output_quantum(model)


def _recipe(*, is_dynamic: bool, by_tensor: bool, floats: tuple[str, ...]) -> Any:
    """8-bit everything but what crosses the border of the model, and the layers left float."""
    manager = recipe_manager.RecipeManager()
    if is_dynamic:
        manager.add_dynamic_config(
            regex=_ALL, operation_name=TFLOperationName.ALL_SUPPORTED, num_bits=8
        )
    else:
        manager.add_static_config(
            regex=_ALL,
            operation_name=TFLOperationName.ALL_SUPPORTED,
            activation_num_bits=8,
            weight_num_bits=8,
            weight_granularity=_TENSOR if by_tensor else _CHANNEL,
        )
    for border in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        manager.add_quantization_config(_ALL, border, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for scope in floats:
        manager.add_quantization_config(
            f"^{re.escape(scope)}",
            TFLOperationName.ALL_SUPPORTED,
            algorithm_key=AlgorithmName.NO_QUANTIZE,
        )
    return manager.get_quantization_recipe()


def _shorten(model: Any) -> None:
    """Tensors that do not cross the border of the model lose their long names."""
    for graph in model.subgraphs:
        kept = {*graph.inputs, *graph.outputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in kept:
                tensor.name = b"%x" % index


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
