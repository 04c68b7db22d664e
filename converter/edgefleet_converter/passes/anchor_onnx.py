"""The anchor of ONNX: what onnxruntime's static quantizer makes at its own defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from edgefleet_contract.canonical import Json
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.passes.observe_onnx import batches


def make() -> dict[str, Json]:
    """`int8.onnx` from `model.onnx` and `calibration.npz`: no option is set."""
    model = onnx.load("model.onnx")
    quantize_static("model.onnx", "int8.onnx", _Reader(model))
    return {}


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Feeds `calibration.npz` in batches of the size that the model takes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        weights = {tensor.name for tensor in model.graph.initializer}
        names = [value.name for value in model.graph.input if value.name not in weights]
        parts = batches(model, load_tensors(Path("calibration.npz"), "input"))
        self._feeds: Iterator[dict[str, Any]] = (
            dict(zip(names, part, strict=True)) for part in parts
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None after the last."""
        return next(self._feeds, None)
