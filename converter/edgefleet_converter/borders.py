"""Where a model takes or gives 8-bit integers for numbers: the step between the two, from its file.

So that clients of every variant send and get the same, such a model is wrapped in the steps
`quantize` and `dequantize`, with the scale and zero point that the file itself names. What wraps it
here are the very steps that a device runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.graph import Node
from edgefleet_converter.arrays import Arrays
from edgefleet_processing.graph import prepare
from edgefleet_processing.settings import number

_DTYPES = ("int8", "uint8", "int16")


@dataclass(frozen=True, slots=True)
class Border:
    """What one step of an integer tensor is worth, as text that says it exactly; what 0 is."""

    scale: str
    zero_point: int
    dtype: str

    def quantize(self, taken: str, given: str) -> Node:
        """Numbers into the model."""
        settings: dict[str, object] = {"scale": self.scale, "dtype": self.dtype}
        return Node("quantize", (taken,), (given,), settings=self._with_zero(settings))

    def dequantize(self, taken: str, given: str) -> Node:
        """Numbers out of the model."""
        return Node(
            "dequantize", (taken,), (given,), settings=self._with_zero({"scale": self.scale})
        )

    def _with_zero(self, settings: dict[str, object]) -> dict[str, object]:
        return settings | ({"zero_point": self.zero_point} if self.zero_point else {})


class Bare(Protocol):
    """A loaded model that says what its integers mean: None for a tensor that is what it is."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_int8: bool
    quantum: float
    input_borders: tuple[Border | None, ...]
    output_borders: tuple[Border | None, ...]

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs for one batch."""
        ...


def border_of(detail: dict[str, Any]) -> Border | None:
    """The border that a tensor of LiteRT has: one scale for all of an integer tensor."""
    scales = detail["quantization_parameters"]["scales"]
    dtype = np.dtype(detail["dtype"]).name
    if dtype not in _DTYPES or len(scales) != 1 or not scales[0] > 0:
        return None
    scale = np.float32(scales[0])
    text = str(scale)
    if np.float32(number(text, "scale")) != scale:
        raise OperatorError(f"the scale {text} of {detail['name']!r} cannot be written exactly")
    zero = int(detail["quantization_parameters"]["zero_points"][0])
    return Border(text, zero, dtype)


class Bordered:
    """A model whose integer borders are crossed by steps, where the caller has numbers.

    Args:
        model: a loaded model.
        dtypes: of the arrays that it will be given; float32 for an integer input crosses a border.
        want_numbers: whether outputs cross, too; they do where an input does.
    """

    def __init__(self, model: Bare, dtypes: Sequence[str], *, want_numbers: bool) -> None:
        self._model = model
        self.input_borders = (
            tuple(
                border if dtype == "float32" else None
                for border, dtype in zip(model.input_borders, dtypes, strict=False)
            )
            + model.input_borders[len(dtypes) :]
        )
        is_crossed = any(self.input_borders)
        self.output_borders = tuple(
            border if is_crossed or want_numbers else None for border in model.output_borders
        )
        self.inputs = _as_numbers(model.inputs, self.input_borders)
        self.outputs = _as_numbers(model.outputs, self.output_borders)
        self.is_int8 = model.is_int8
        scales = [float(np.float32(number(b.scale, "scale"))) for b in self.output_borders if b]
        self.quantum = max(scales) if scales else model.quantum

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs for one batch."""
        taken = into_integers(inputs, self.input_borders)
        given = self._model.infer(taken)
        return _crossed(given, [b.dequantize("x", "y") if b else None for b in self.output_borders])


def into_integers(arrays: Arrays, borders: Sequence[Border | None]) -> Arrays:
    """The arrays as a model takes them whose borders these are, as far as there are any."""
    padded = (*borders, *(None for _ in range(len(arrays) - len(borders))))
    return _crossed(arrays, [b.quantize("x", "y") if b else None for b in padded])


def borders_json(borders: tuple[Border | None, ...]) -> Json:
    """Borders as a worker returns them."""
    return [
        None if b is None else {"scale": b.scale, "zero_point": b.zero_point, "dtype": b.dtype}
        for b in borders
    ]


def parse_borders(value: Json) -> tuple[Border | None, ...]:
    """The other way."""
    found: list[Border | None] = []
    for one in value if isinstance(value, list) else []:
        if isinstance(one, dict) and isinstance(one["zero_point"], int):
            found.append(Border(str(one["scale"]), one["zero_point"], str(one["dtype"])))
        else:
            found.append(None)
    return tuple(found)


def _as_numbers(
    specs: tuple[TensorSpec, ...], borders: tuple[Border | None, ...]
) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, dtype="float32") if border else spec
        for spec, border in zip(specs, borders, strict=True)
    )


def _crossed(arrays: Arrays, nodes: list[Node | None]) -> Arrays:
    return tuple(
        array if node is None else prepare([node], {}).run({"x": array}, ["y"], {})["y"]
        for array, node in zip(arrays, nodes, strict=True)
    )
