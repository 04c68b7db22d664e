"""What the ranges of an int8 file cut off: histograms of the values that meet its quantizers.

A range that begins at zero stands for a rectifier (Relu): what lies below it is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from edgefleet_contract.canonical import Json
from edgefleet_converter.arrays import Array, Arrays, load_tensors
from edgefleet_converter.passes.observe_onnx import observe
from edgefleet_converter.passes.tflite_file import parse

BARS: Final = 32
MOST: Final = 12
"""Tensors that are told: the most clipped ones."""
EXAMPLES: Final = 256
_WIDTHS: Final = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535)} | {
    "int16": (-32768, 32767)
}


@dataclass(slots=True)
class Seen:
    """A tensor: the range that its quantizer keeps, and what met it."""

    name: str
    clip_low: float
    clip_high: float
    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    clipped: int = 0
    bars: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BARS, np.int64))

    def stretch(self, values: Array) -> None:
        """Learn how far values go."""
        if values.size:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    def add(self, values: Array) -> None:
        """Count values."""
        half = (self.clip_high - self.clip_low) / 510
        flat = values.astype(np.float64).reshape(-1)
        low, high = self.ends
        if self.is_rectified:
            flat = flat[flat >= 0]
        else:
            self.clipped += int((flat < self.clip_low - half).sum())
        self.clipped += int((flat > self.clip_high + half).sum())
        self.count += values.size
        self.bars += np.histogram(flat, BARS, (low, high))[0]

    @property
    def is_rectified(self) -> bool:
        """Whether the range begins at zero."""
        return self.clip_low == 0.0

    @property
    def ends(self) -> tuple[float, float]:
        """Where the histogram begins and ends."""
        low = 0.0 if self.is_rectified else min(self.clip_low, self.low)
        return low, max(self.clip_high, self.high, low + 1e-30)

    @property
    def share(self) -> float:
        """The share of values that was cut off, or lies at an end."""
        return self.clipped / max(self.count, 1)

    def told(self, share: str) -> dict[str, Json]:
        """As `report.HistogramReport`; `share` names what was counted."""
        low, high = self.ends
        return {
            "name": self.name,
            "low": low,
            "high": high,
            "counts": [int(one) for one in self.bars],
            "clip_low": self.clip_low,
            "clip_high": self.clip_high,
            share: self.share,
        }


def look_onnx() -> dict[str, Json]:
    """`tensors`: the most clipped tensors of `model`, by `calibration.npz`.

    Seen are the values that come to each QuantizeLinear, before it cuts.
    """
    model = onnx.load("model")
    arrays = _some(load_tensors(Path("calibration.npz"), "input"))
    seen = {one.name: one for one in _quantizers(model)}
    for found in observe(model, list(seen), arrays):
        for name, values in found.items():
            seen[name].stretch(values)
    for found in observe(model, list(seen), arrays):
        for name, values in found.items():
            seen[name].add(values)
    return {"tensors": _most(seen.values(), "clipped")}


def look_tflite() -> dict[str, Json]:
    """The same of a TFLite file. Its tensors are seen behind their quantizer.

    So the values in the last step of a range are counted, those included that fit it.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    raw = Path("model").read_bytes()
    interpreter = Interpreter(
        model_content=raw,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    inputs = interpreter.get_input_details()
    arrays = _some(load_tensors(Path("calibration.npz"), "input"))
    interpreter.allocate_tensors()
    wanted = _activations(interpreter, raw)
    seen: dict[int, Seen] = {}
    for row in range(len(arrays[0])):
        for detail, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(detail["index"], array[row : row + 1])
        interpreter.invoke()
        for detail in wanted:
            scale, zero = (float(one) for one in detail["quantization"])
            first, last = _WIDTHS[np.dtype(detail["dtype"]).name]
            codes = interpreter.get_tensor(detail["index"])
            one = seen.setdefault(
                detail["index"],
                Seen(detail["name"], (first - zero) * scale, (last - zero) * scale),
            )
            one.count += codes.size
            one.clipped += int((codes == last).sum())
            if not one.is_rectified:
                one.clipped += int((codes == first).sum())
            values = (codes.astype(np.float64) - zero) * scale
            one.bars += np.histogram(values, BARS, one.ends)[0]
    return {"tensors": _most(seen.values(), "at_end")}


def _some(arrays: Arrays) -> Arrays:
    return tuple(array[:EXAMPLES] for array in arrays)


def _quantizers(model: ModelProto) -> Iterator[Seen]:
    """The activations that the file quantizes by one scale."""
    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        scale = constants.get(node.input[1])
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if scale is None or zero is None:
            continue
        step, offset = numpy_helper.to_array(scale), numpy_helper.to_array(zero)
        if step.size == 1 and offset.dtype.name in _WIDTHS:
            first, last = _WIDTHS[offset.dtype.name]
            at, by = float(offset.reshape(-1)[0]), float(step.reshape(-1)[0])
            yield Seen(node.input[0], (first - at) * by, (last - at) * by)


def _activations(interpreter: Any, raw: bytes) -> list[Any]:
    """The tensors of 8 and 16 bits that are computed."""
    graph = parse(raw).subgraphs[0]
    computed = {int(one) for operator in graph.operators for one in operator.outputs}
    return [
        detail
        for detail in interpreter.get_tensor_details()
        if np.dtype(detail["dtype"]).name in _WIDTHS
        and len(detail["quantization_parameters"]["scales"]) == 1
        and detail["index"] in computed
    ]


def _most(seen: Iterable[Seen], share: str) -> list[Json]:
    order = sorted(seen, key=lambda one: -one.share)  # ties stay in the order of the graph
    return [one.told(share) for one in order[:MOST]]
