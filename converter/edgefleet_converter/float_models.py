"""Copies of a source, held against what it says itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract.bundle import Format
from edgefleet_converter import gate
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.bench import Answers, Bench
from edgefleet_converter.foreign import MORE, versions
from edgefleet_converter.targets import Precision

_RANGE: Final = 255
"""Steps of an 8-bit output."""


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A model file, what it answers to the held-out examples, and how far that is off.

    A stateful one answers in its sequence alone: then there are no answers here.
    """

    path: Path
    answers: Answers | None
    parity: float

    @property
    def precision(self) -> Precision:
        """Of a source that came in finished: int8; of every other one float32."""
        is_int8 = self.answers is not None and self.answers.is_int8
        return Precision.INT8 if is_int8 else Precision.FLOAT32


def held_to(
    bench: Bench, kind: Format, path: Path, expected: Arrays, more: Arrays = ()
) -> FloatModel:
    """A copy that answers as its source does; `more` are answers to calibration examples.

    Raises:
        OperatorError: it strays by more than the recipe allows.
    """
    name = f"{kind}-float32"
    answers = bench.run(kind, path, what=f"running {name}")
    gate.refuse_not_finite(answers.arrays, what=name)
    tolerance = bench.recipe.parity.max_abs_err
    parity = gate.refuse_disparity(expected, answers.arrays, tolerance=tolerance, what=name)
    if more:
        others = bench.run(kind, path, what=f"running {name}", data=MORE).arrays
        found = gate.refuse_disparity(more, others, tolerance=tolerance, what=name)
        parity = max(parity, found)
    return FloatModel(path, answers, parity)


def onnx_of_tflite(
    bench: Bench, source: Path, answers: Answers
) -> tuple[FloatModel, dict[str, str]]:
    """The ONNX copy of a TFLite file, and the versions of what made it.

    A float one is held to the recipe's parity. An int8 one [recipe-14.8] may stray by one step of
    its output, or by as much as the kernels of TFLite's own runtime do from one another.

    Raises:
        OperatorError: the toolchain lacks tf2onnx, which does not know an operator, or it strays.
    """
    made, tidy = bench.scratch / "source.onnx", bench.scratch / "model.onnx"
    says = bench.foreign_task(
        "tensorflow_from_tflite",
        "converting TFLite to ONNX",
        {"source": source},
        {"model.onnx": made},
        takes=[spec.name for spec in answers.inputs],
        gives=[spec.name for spec in answers.outputs],
    )
    tools = versions(says["tools"])
    if not answers.is_int8:
        files = {"source": made}, {"model.onnx": tidy}
        bench.task("tidy_onnx", "reading the ONNX model", *files)
        return held_to(bench, Format.ONNX, tidy, answers.arrays), tools
    bench.task("read_onnx", "reading the ONNX model", {"source": made}, {})
    copy = bench.run(Format.ONNX, made, what="running the ONNX copy")
    allowed = _int8_room(bench, source, answers)
    parity = gate.refuse_disparity(
        answers.arrays, copy.arrays, tolerance=allowed, what="the ONNX copy of an int8 model"
    )
    return FloatModel(made, replace(copy, is_int8=True), parity), tools


def _int8_room(bench: Bench, source: Path, answers: Answers) -> float:
    """How far an int8 copy may stray, relative to the largest output where that is over 1."""
    scale = max(1.0, *(float(np.abs(a.astype(np.float64)).max()) for a in answers.arrays))
    spans = [float(np.ptp(array.astype(np.float64))) for array in answers.arrays]
    room = max(answers.quantum, *(span / _RANGE for span in spans))
    for others in bench.other_kernels(Format.TFLITE, source).values():
        for mine, theirs in zip(answers.arrays, others, strict=True):
            gap = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
            room = max(room, float(gap.max(initial=0.0)))
    return room / scale
