"""What can be built of a model: a format and a precision, or the file as it came in."""

from __future__ import annotations

from enum import StrEnum

from edgefleet_contract.bundle import Format


class Precision(StrEnum):
    """What a variant computes with; the word that a manifest has for it (section 14)."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT16X8 = "int16x8"
    INT8 = "int8"
    DYNAMIC = "dynamic"
    INT4 = "int4"

    @property
    def levels(self) -> int:
        """How many steps the values between its layers have; 0 where they are float32."""
        return {Precision.INT8: 255, Precision.DYNAMIC: 255, Precision.INT16X8: 65535}.get(self, 0)


class Target(StrEnum):
    """A variant that can be built. `as-is`: the model file itself, byte for byte."""

    ONNX_INT8 = "onnx-int8"
    TFLITE_INT8 = "tflite-int8"
    ONNX_FLOAT32 = "onnx-float32"
    TFLITE_FLOAT32 = "tflite-float32"
    ONNX_FLOAT16 = "onnx-float16"
    TFLITE_FLOAT16 = "tflite-float16"
    ONNX_INT16X8 = "onnx-int16x8"
    TFLITE_INT16X8 = "tflite-int16x8"
    ONNX_INT4 = "onnx-int4"
    TFLITE_INT4 = "tflite-int4"
    ONNX_DYNAMIC = "onnx-dynamic"
    TFLITE_DYNAMIC = "tflite-dynamic"
    ONNX_AS_IS = "onnx-as-is"
    TFLITE_AS_IS = "tflite-as-is"

    @property
    def precision(self) -> Precision | None:
        """What it is to compute with; None where that is what came in."""
        return None if self.is_as_is else Precision(self.value.partition("-")[2])

    @property
    def is_int8(self) -> bool:
        """Whether it is to compute in 8-bit integers, by ranges taken beforehand."""
        return self.precision is Precision.INT8

    @property
    def is_quantized(self) -> bool:
        """Whether it is made of a float model and may differ from it."""
        return self.precision not in (None, Precision.FLOAT32)

    @property
    def needs_calibration(self) -> bool:
        """Whether ranges are taken from examples beforehand."""
        return self.precision in (Precision.INT8, Precision.INT16X8)

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
