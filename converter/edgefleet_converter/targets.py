"""What can be built of a model: a format and a precision, or the file as it came in."""

from __future__ import annotations

from enum import StrEnum

from edgefleet_contract.bundle import Format


class Target(StrEnum):
    """A variant that can be built. `as-is`: the model file itself, byte for byte."""

    ONNX_INT8 = "onnx-int8"
    TFLITE_INT8 = "tflite-int8"
    ONNX_FLOAT32 = "onnx-float32"
    TFLITE_FLOAT32 = "tflite-float32"
    ONNX_AS_IS = "onnx-as-is"
    TFLITE_AS_IS = "tflite-as-is"

    @property
    def is_int8(self) -> bool:
        """Whether it is to compute in 8-bit integers."""
        return self.value.endswith("-int8")

    @property
    def is_as_is(self) -> bool:
        """Whether nothing is converted."""
        return self.value.endswith("-as-is")

    @property
    def is_tflite(self) -> bool:
        """Whether it is a TFLite file (else ONNX)."""
        return self.value.startswith("tflite-")

    @property
    def kind(self) -> Format:
        """The kind of file."""
        return Format.TFLITE if self.is_tflite else Format.ONNX
