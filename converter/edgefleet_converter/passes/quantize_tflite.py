"""Quantized TFLite by ai-edge-quantizer, inputs and outputs left float32.

Its default calibrator averages ranges and so clips; smallest and largest seen are taken instead. It
writes operator versions of 1 everywhere, with which an older runtime picks a kernel of another type
and computes garbage silently: the versions are stamped afterwards.
"""

from __future__ import annotations

import copy
import re
from enum import StrEnum
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
from edgefleet_converter.search.candidate import Operators

_ALL: Final = ".*"
_EVERY: Final = TFLOperationName.ALL_SUPPORTED
_DEPTHWISE: Final = TFLOperationName.DEPTHWISE_CONV_2D
_CURVES: Final = (
    *(TFLOperationName.SOFTMAX, TFLOperationName.LOGISTIC, TFLOperationName.TANH),
    *(TFLOperationName.HARD_SWISH, TFLOperationName.GELU),
)
_MATRIX: Final = (
    *(TFLOperationName.CONV_2D, TFLOperationName.FULLY_CONNECTED, TFLOperationName.BATCH_MATMUL),
)
_TAKEN: Final[dict[Operators, tuple[TFLOperationName, ...]]] = {
    Operators.LINEAR: (*_MATRIX, _DEPTHWISE),
    Operators.MATRIX: _MATRIX,
}
"""The kinds that become 8-bit; those of a set that is not here: all that can."""
_LEFT: Final[dict[Operators, tuple[TFLOperationName, ...]]] = {
    Operators.STRAIGHT: _CURVES,
    Operators.STRAIGHT_MATRIX: (*_CURVES, _DEPTHWISE),
}
"""The kinds that stay float32."""
_ALWAYS_FLOAT: Final = (TFLOperationName.DIV, TFLOperationName.SQRT)
"""The quantizer takes them, and runtimes that devices have do not."""
_TENSOR: Final = QuantGranularity.TENSORWISE
_CHANNEL: Final = QuantGranularity.CHANNELWISE


class Way(StrEnum):
    """What is quantized, by the precisions that targets are named after."""

    INT8 = "int8"
    INT16X8 = "int16x8"
    DYNAMIC = "dynamic"
    INT4 = "int4"
    FLOAT16 = "float16"

    @property
    def is_static(self) -> bool:
        """Whether the ranges of activations are taken from calibration data."""
        return self in (Way.INT8, Way.INT16X8)


def make(*, way: str) -> dict[str, Json]:
    """`made.tflite` from `model.tflite`, and `calibration.npz` for static ranges.

    Returns `quantum`: the largest step of an output, 0 where outputs are computed float.
    """
    return {"quantum": quantize_file(Path("model.tflite"), Path("made.tflite"), way=Way(way))}


def quantize_file(
    source: Path,
    made: Path,
    *,
    way: Way = Way.INT8,
    by_tensor: bool = False,
    floats: tuple[str, ...] = (),
    operators: Operators = Operators.ALL,
    ranges: Any = None,
) -> float:
    """Write the quantized file; the largest step of an output, 0 where outputs are computed float.

    Args:
        source: the float file; static ranges are taken from `calibration.npz` beside it.
        made: where it goes.
        way: what is quantized.
        by_tensor: weights have one scale a tensor, not one a channel; with dynamic ranges those of
            dense layers alone.
        floats: scopes of the operators that stay float32.
        operators: which kinds become 8-bit.
        ranges: those of `ranges_of`, where they were taken before.
    """
    raw = source.read_bytes()
    qt = quantizer.Quantizer(bytearray(raw), _recipe(way, floats, operators, by_tensor=by_tensor))
    if way.is_static and ranges is None:
        ranges = ranges_of(source, way)
    result = qt.quantize(copy.deepcopy(ranges), enable_progress_report=False)
    if result.quantized_model is None:
        raise OperatorError("nothing to quantize")
    model = parse(bytes(result.quantized_model))
    stamp(model, like=parse(raw))
    _shorten(model)
    made.write_bytes(serialize(model))
    return output_quantum(model)


def ranges_of(source: Path, way: Way = Way.INT8) -> Any:
    """The smallest and largest value of each tensor over `calibration.npz`, as the quantizer has
    them; the same whatever is left float."""
    raw = source.read_bytes()
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(_recipe(way, (), Operators.ALL, by_tensor=False))
    calibrator = Calibrator(raw, num_threads=1, qsv_update_func=min_max_update)
    examples = feeds_of(parse(raw), load_tensors(Path("calibration.npz"), "input"))
    calibrator.calibrate({SIGNATURE_KEY: examples}, manager)
    return calibrator.get_model_qsvs()


def _recipe(way: Way, floats: tuple[str, ...], operators: Operators, *, by_tensor: bool) -> Any:
    """Everything that the way can, but what crosses the border of the model and is left float."""
    manager = recipe_manager.RecipeManager()
    if way is Way.DYNAMIC:
        for kind in _TAKEN.get(operators, (_EVERY,)):
            manager.add_dynamic_config(regex=_ALL, operation_name=kind, num_bits=8)
        if by_tensor:
            manager.add_dynamic_config(
                _ALL, TFLOperationName.FULLY_CONNECTED, num_bits=8, granularity=_TENSOR
            )
    elif way is Way.FLOAT16:
        manager.add_weight_only_config(
            _ALL, _EVERY, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    elif way is Way.INT4:
        manager.add_weight_only_config(_ALL, _EVERY, num_bits=4, algorithm_key=AlgorithmName.MSE)
        # No runtime has kernels for depthwise weights of four bits.
        manager.add_weight_only_config(_ALL, _DEPTHWISE, num_bits=8)
    else:
        for kind in _TAKEN.get(operators, (_EVERY,)):
            manager.add_static_config(
                regex=_ALL,
                operation_name=kind,
                activation_num_bits=16 if way is Way.INT16X8 else 8,
                weight_num_bits=8,
                weight_granularity=_TENSOR if by_tensor else _CHANNEL,
            )
    border = (TFLOperationName.INPUT, TFLOperationName.OUTPUT)
    for kind in (*border, *_ALWAYS_FLOAT, *_LEFT.get(operators, ())):
        manager.add_quantization_config(_ALL, kind, algorithm_key=AlgorithmName.NO_QUANTIZE)
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


def feeds_of(model: Any, arrays: Arrays) -> list[dict[str, np.ndarray[Any, Any]]]:
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
