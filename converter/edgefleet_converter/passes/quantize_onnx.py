"""int8 ONNX: static QDQ by onnxruntime, uint8 activations, int8 weights per channel.

Inputs and outputs stay float32. Softmax and the like stay float: they cost little and lose much.
Unsigned activations with signed weights are what processors with VNNI multiply fastest. Activations
of 16 bits are signed and symmetric, as TFLite has them; onnxruntime has no kernels that multiply
them, and computes in float32 between the roundings (`wide_onnx`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.passes.slim_onnx import slim
from edgefleet_converter.passes.wide_onnx import keep_float_sums

OPERATORS: Final = (
    *("Gemm", "MatMul", "Conv", "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Reshape", "Flatten", "Transpose", "Pad", "Squeeze"),
)
_BATCH: Final = 32


def quantize() -> dict[str, Json]:
    """`int8.onnx` from `model.onnx`, ranges from `calibration.npz` (smallest and largest seen).

    Returns `quantum`: the largest step of a quantized output, 0 where every output is float.
    """
    return {"quantum": quantize_file(Path("model.onnx"), Path("int8.onnx"))}


def quantize_file(source: Path, made: Path, *, is_int16: bool = False) -> float:
    """Write the quantized file; the largest step of a quantized output, 0 where all are float.

    Args:
        source: the float file; ranges are taken from `calibration.npz` beside it.
        made: where it goes.
        is_int16: activations have 16 bits, weights 8 as ever.

    Raises:
        OperatorError: there is no layer to quantize.
    """
    model = onnx.load(source)
    present = {node.op_type for node in model.graph.node}
    if not present & {"Gemm", "MatMul", "Conv"}:
        raise OperatorError(
            f"nothing to quantize: the operators are {', '.join(sorted(present))}",
            hint="take the target out of the recipe; a float32 target works",
        )
    quantize_static(
        source,
        made,
        _Reader(model),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[name for name in OPERATORS if name in present],
        per_channel=True,
        activation_type=QuantType.QInt16 if is_int16 else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": True} if is_int16 else None,
    )
    quantized = onnx.load(made)
    quantized.ir_version = model.ir_version
    if is_int16:
        keep_float_sums(quantized)
    slim(quantized)
    onnx.checker.check_model(quantized, full_check=True)
    onnx.save(quantized, made)
    return output_quantum(quantized)


def output_quantum(model: onnx.ModelProto) -> float:
    """The largest scale of a DequantizeLinear that gives an output of the graph."""
    outputs = {value.name for value in model.graph.output}
    scales = {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and outputs & set(node.output)
    }
    values = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name in scales]
    return max((float(value.max()) for value in values), default=0.0)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Feeds `calibration.npz` in batches of the size that the model takes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        names = [value.name for value in inputs]
        first = inputs[0].type.tensor_type.shape.dim[0]
        step = first.dim_value if first.HasField("dim_value") else _BATCH
        arrays = load_tensors(Path("calibration.npz"), "input")
        stop = len(arrays[0]) - len(arrays[0]) % step if first.HasField("dim_value") else None
        self._feeds: Iterator[dict[str, Any]] = iter(
            [
                {
                    name: array[start : start + step]
                    for name, array in zip(names, arrays, strict=True)
                }
                for start in range(0, len(arrays[0][:stop]), step)
            ]
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None after the last."""
        return next(self._feeds, None)
