"""ONNX with dynamic ranges: 8-bit weights in the file, ranges of activations taken at inference.

onnxruntime takes one range for all rows of a call, so that an answer would depend on the requests
beside it. So the batch is fixed to one here, whatever the model took.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
from onnx import ModelProto, shape_inference
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgefleet_contract.errors import OperatorError

DENSE: Final = ("Gemm", "MatMul")
"""Convolutions stay float32: theirs run at a third of the speed."""

_BETWEEN: Final = Path("dynamic.onnx")


def with_dynamic_ranges(model: ModelProto) -> ModelProto:
    """The model with dense layers in 8 bits, for one example a call.

    Raises:
        OperatorError: it has no dense layer, or has a batch that is fixed to something else.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    if not any(n.op_type in DENSE and set(n.input[1:2]) & weights for n in model.graph.node):
        raise OperatorError(
            "nothing to quantize with dynamic ranges: no dense layer with constant weights",
            hint="take onnx-dynamic out of the recipe; onnx-int8 is for convolutions",
        )
    fix_batch(model)
    ir = model.ir_version
    quantize_dynamic(
        model,
        _BETWEEN,
        op_types_to_quantize=[*DENSE],
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    made = onnx.load(_BETWEEN)
    made.ir_version = ir
    return made


def fix_batch(model: ModelProto) -> None:
    """Fix the first dimension of what goes in and comes out to one."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name in weights or not dims:
            continue
        if dims[0].HasField("dim_value") and dims[0].dim_value != 1:
            raise OperatorError(
                f"{value.name!r} takes {dims[0].dim_value} examples a call; dynamic ranges need 1",
                hint="export the model with a batch that varies, or of one",
            )
        dims[0].ClearField("dim_param")
        dims[0].dim_value = 1
    model.graph.ClearField("value_info")
    inferred = shape_inference.infer_shapes(model)
    model.graph.value_info.extend(inferred.graph.value_info)
