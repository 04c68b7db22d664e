"""ONNX in another precision than float32: the worker task behind targets.

What a precision is, and what it is held to, is said in docs/spec/recipe.md, section 14.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import onnx
from onnx import ModelProto

from edgefleet_contract.canonical import Json
from edgefleet_converter.passes.dynamic_onnx import with_dynamic_ranges
from edgefleet_converter.passes.four_bits_onnx import with_four_bits
from edgefleet_converter.passes.halve_onnx import with_half_weights
from edgefleet_converter.passes.quantize_onnx import output_quantum, quantize_file

_SOURCE: Final = Path("model.onnx")
_MADE: Final = Path("made.onnx")
_REWRITERS: Final[dict[str, Callable[[ModelProto], ModelProto]]] = {
    "float16": with_half_weights,
    "int4": with_four_bits,
    "dynamic": with_dynamic_ranges,
}


def make(*, way: str) -> dict[str, Json]:
    """`made.onnx` from `model.onnx`, and `calibration.npz` for static ranges.

    Returns `quantum`: the largest step of a quantized output, 0 where outputs are computed float.

    Raises:
        OperatorError: the model has nothing that the precision is for.
    """
    if way not in _REWRITERS:
        return {"quantum": quantize_file(_SOURCE, _MADE, is_int16=way == "int16x8")}
    made = _REWRITERS[way](onnx.load(_SOURCE))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, _MADE)
    return {"quantum": output_quantum(made)}
