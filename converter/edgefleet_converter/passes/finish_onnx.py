"""Passes over a finished ONNX file: the runtime's own, run ahead, and weights in another file.

Worker tasks. Neither changes what is computed: the caller holds the answers against those before.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError

LEAST: Final = 1024
"""Bytes of a tensor that is worth a place in the file of weights."""

_ALIGNED: Final = 64  # as runtimes want their tensors


def optimize() -> dict[str, Json]:
    """`optimized.onnx` from `model.onnx`: what onnxruntime makes of it on this processor.

    Returns the version of the runtime, whose operators it has.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = "optimized.onnx"
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    ort.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
    # Written anew: what the runtime writes says when and by what.
    model = onnx.load("optimized.onnx")
    Path("optimized.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return {"version": ort.__version__}


def split(*, location: str) -> dict[str, Json]:
    """`split.onnx` and `weights` from `model.onnx`: initialisers of 1 KiB or more lie in the file
    of that name, each at a multiple of 64.

    Raises:
        OperatorError: there are none.
    """
    model = onnx.load("model.onnx")
    at = moved = 0
    with Path("weights").open("wb") as file:
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.STRING or _size(tensor) < LEAST:
                continue
            raw = onnx.numpy_helper.to_array(tensor).tobytes()
            file.write(bytes(-at % _ALIGNED) + raw)
            at += -at % _ALIGNED
            _refer(tensor, location, at, len(raw))
            at += len(raw)
            moved += 1
    if not moved:
        raise OperatorError(
            f"no weights of {LEAST} bytes or more to map",
            hint="take optimize.mapped_weights out of the recipe: the file is small",
        )
    Path("split.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return {"tensors": moved, "bytes": at}


def _size(tensor: TensorProto) -> int:
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    size: int = math.prod(tensor.dims) * kind.itemsize
    return size


def _refer(tensor: TensorProto, name: str, offset: int, length: int) -> None:
    """Make a tensor say where its bytes lie, and hold none."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(field)
    tensor.ClearField("uint64_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
