"""The anchor of TFLite: what ai-edge-quantizer makes by its own static int8 recipe."""

from __future__ import annotations

from pathlib import Path

from ai_edge_quantizer import quantizer, recipe

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.passes.quantize_tflite import feeds_of
from edgefleet_converter.passes.tflite_file import SIGNATURE_KEY, parse


def make() -> dict[str, Json]:
    """`int8.tflite` from `model.tflite` and `calibration.npz`: no option is set."""
    raw = Path("model.tflite").read_bytes()
    examples = feeds_of(parse(raw), load_tensors(Path("calibration.npz"), "input"))
    made = quantizer.Quantizer(bytearray(raw), recipe.static_wi8_ai8())
    result = made.quantize(made.calibrate({SIGNATURE_KEY: examples}))
    if result.quantized_model is None:
        raise OperatorError("nothing to quantize")
    Path("int8.tflite").write_bytes(bytes(result.quantized_model))
    return {}
