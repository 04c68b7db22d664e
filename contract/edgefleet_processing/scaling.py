"""Numbers to other numbers, element by element: scaling, clipping, rounding, quantizing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from edgefleet_contract.errors import Malformed
from edgefleet_processing.errors import BadInput
from edgefleet_processing.settings import axis_of, number, numbers, positive, within
from edgefleet_processing.step import Run
from edgefleet_processing.tensors import Array, floats, need_integers, need_room


@dataclass(frozen=True, slots=True)
class Normalise:
    """`mean` and `std`: one number, or one for each channel; `scale` is applied before them.

    `axis` is that of the channels: -1 for NHWC, 1 for NCHW.
    """

    mean: tuple[str, ...] = ("0",)
    std: tuple[str, ...] = ("1",)
    scale: str = "1"
    axis: int = -1


def prepare_normalise(settings: Normalise, _: bytes | None) -> Run:
    """Numbers of any dtype -> float32 of the same shape: (x scale - mean) / std."""
    mean = np.array(numbers(settings.mean, "mean"), np.float32)
    std = np.array(numbers(settings.std, "std"), np.float32)
    scale = np.float32(number(settings.scale, "scale"))
    axis_of(settings.axis)
    if len(mean) != len(std) and 1 not in (len(mean), len(std)):
        raise Malformed(f"mean has {len(mean)} numbers, std has {len(std)}")
    if not (std > 0).all():
        raise Malformed("std must be over 0")
    channels = max(len(mean), len(std))

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x = floats(taken[0])
        shape = [1] * x.ndim
        if channels > 1:
            axis = checked_axis(x, settings.axis)
            shape[axis] = channels
            if x.shape[axis] != channels:
                raise BadInput(f"has {channels} channels to normalise, got {list(x.shape)}")
        one = [1] * x.ndim
        by_mean = mean.reshape(shape if len(mean) > 1 else one)
        by_std = std.reshape(shape if len(std) > 1 else one)
        return ((x * scale - by_mean) / by_std,)

    return run


@dataclass(frozen=True, slots=True)
class Scale:
    """`factor` and `offset`."""

    factor: str = "1"
    offset: str = "0"


def prepare_scale(settings: Scale, _: bytes | None) -> Run:
    """Numbers of any dtype -> float32 of the same shape: x factor + offset."""
    factor = np.float32(number(settings.factor, "factor"))
    offset = np.float32(number(settings.offset, "offset"))
    return lambda taken: (floats(taken[0]) * factor + offset,)


@dataclass(frozen=True, slots=True)
class Clip:
    """`low` and `high`."""

    low: str
    high: str


def prepare_clip(settings: Clip, _: bytes | None) -> Run:
    """Numbers of any dtype -> float32 of the same shape: max(low, min(x, high)); NaN stays."""
    low, high = number(settings.low, "low"), number(settings.high, "high")
    if low > high:
        raise Malformed(f"low is {settings.low!r}, over high, {settings.high!r}")
    return lambda taken: (np.clip(floats(taken[0]), np.float32(low), np.float32(high)),)


class Number(StrEnum):
    """The dtypes that numbers are cast to."""

    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Rounding(StrEnum):
    """How a number becomes an integer: to the nearest, halves to even or up; or cut off."""

    HALF_EVEN = "half_even"
    HALF_UP = "half_up"
    FLOOR = "floor"
    ZERO = "zero"


_ROUND: Final[dict[Rounding, Callable[[Any], Any]]] = {
    Rounding.HALF_EVEN: np.rint,
    Rounding.HALF_UP: lambda x: np.floor(x + 0.5),
    Rounding.FLOOR: np.floor,
    Rounding.ZERO: np.trunc,
}


@dataclass(frozen=True, slots=True)
class Cast:
    """`dtype` that comes out; `rounding` where floats become integers."""

    dtype: Number
    rounding: Rounding = Rounding.HALF_EVEN


def cast(x: Array, to: Cast) -> Array:
    """Numbers -> the same numbers in another dtype: rounded, then saturated; NaN becomes 0."""
    if x.dtype.kind not in "biuf":
        raise BadInput("takes numbers, got text")
    dtype = np.dtype(to.dtype.value)
    need_room(x.shape, 8)
    if dtype.kind == "f" or x.dtype.kind == "b":
        return x.astype(dtype)
    return saturated(_ROUND[to.rounding](x.astype(np.float64)) if x.dtype.kind == "f" else x, dtype)


def saturated(x: Array, dtype: np.dtype[Any]) -> Array:
    """Whole numbers as integers of a dtype: the nearest that it has; NaN is 0."""
    bounds = np.iinfo(dtype)
    if x.dtype.kind != "f":
        own = np.iinfo(x.dtype)
        low, high = max(bounds.min, own.min), min(bounds.max, own.max)
        return x.clip(x.dtype.type(low), x.dtype.type(high)).astype(dtype)
    whole = np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)
    over, under = whole >= float(bounds.max), whole <= float(bounds.min)
    found = np.where(over | under, 0.0, whole).astype(dtype)
    found[over], found[under] = bounds.max, bounds.min
    return found


class Quantized(StrEnum):
    """The dtypes of quantized tensors."""

    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"


@dataclass(frozen=True, slots=True)
class Quantize:
    """`scale`, `zero_point`, and the `dtype` that comes out."""

    scale: str
    zero_point: int = 0
    dtype: Quantized = Quantized.INT8

    def __post_init__(self) -> None:
        bounds = np.iinfo(self.dtype.value)
        within(self.zero_point, what="zero_point", least=int(bounds.min), most=int(bounds.max))


def prepare_quantize(settings: Quantize, _: bytes | None) -> Run:
    """Numbers -> integers: round(x / scale) + zero_point, halves to even, saturated (ONNX's
    QuantizeLinear)."""
    scale = np.float32(positive(settings.scale, "scale"))
    dtype = np.dtype(settings.dtype.value)

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x = floats(taken[0])
        need_room(x.shape, 8)
        return (saturated(np.rint((x / scale).astype(np.float64)) + settings.zero_point, dtype),)

    return run


@dataclass(frozen=True, slots=True)
class Dequantize:
    """`scale` and `zero_point`."""

    scale: str
    zero_point: int = 0

    def __post_init__(self) -> None:
        within(self.zero_point, what="zero_point", least=-32768, most=65535)


def prepare_dequantize(settings: Dequantize, _: bytes | None) -> Run:
    """Integers -> float32 of the same shape: (x - zero_point) scale."""
    scale = np.float32(positive(settings.scale, "scale"))

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        x = taken[0]
        need_integers(x)
        need_room(x.shape, 8)
        return ((x.astype(np.int64) - settings.zero_point).astype(np.float32) * scale,)

    return run


def checked_axis(x: Array, axis: int) -> int:
    """The axis counted from the front; never the batch's.

    Raises:
        BadInput: the tensor has no such axis.
    """
    found = axis + x.ndim if axis < 0 else axis
    if not 1 <= found < x.ndim:
        raise BadInput(f"has no axis {axis} beside the batch's: {list(x.shape)}")
    return found
