"""The bench of one build: its recipe, its scratch folder, and the worker processes it starts."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format, TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_converter.arrays import Arrays, load_tensors
from edgefleet_converter.isolation import run_task
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.report import Measured

Progress = Callable[[str], None]

CALIBRATION: Final = "calibration.npz"
HELD_OUT: Final = "held_out.npz"
_ANSWERS: Final = "answers.npz"
_HARDWARE: Final = {"x86_64": "x86-64", "aarch64": "arm64", "armv7l": "armhf"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a file said: its tensors, its outputs, and what is known of its precision.

    `is_int8`: it computes in 8-bit integers. `quantum`: the step between values of its outputs, 0
    where the file names none.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    arrays: Arrays
    is_int8: bool
    quantum: float


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the work of one build is done. The scratch folder is the caller's to remove."""

    recipe: Recipe
    scratch: Path
    progress: Progress

    def task(
        self,
        name: str,
        what: str,
        inputs: dict[str, Path],
        outputs: dict[str, Path],
        **params: Json,
    ) -> dict[str, Json]:
        """A task in a worker process; see `run_task`."""
        self.progress(what)
        return run_task(
            name,
            what=what,
            limits=self.recipe.worker,
            inputs=inputs,
            outputs=outputs,
            params=params,
        )

    def run(self, kind: Format, path: Path, *, what: str) -> Answers:
        """What a file says to the held-out examples; for a new file this is its first load."""
        found = self.scratch / _ANSWERS
        says = self.task(
            "run_model",
            what,
            {"model": path, "inputs.npz": self.scratch / HELD_OUT},
            {"outputs.npz": found},
            format=kind.value,
        )
        return Answers(
            _specs(says["inputs"]),
            _specs(says["outputs"]),
            load_tensors(found, "output"),
            says["is_int8"] is True,
            number(says["quantum"]),
        )

    def other_kernels(self, kind: Format, path: Path) -> dict[str, Arrays]:
        """The outputs by the other implementations that run the file; none has to.

        Raises:
            OperatorError: one of them crashed or hung: no device should meet that.
        """
        answers = self.scratch / _ANSWERS
        says = self.task(
            "compare",
            "comparing kernels",
            {"model": path, "inputs.npz": self.scratch / HELD_OUT},
            {"outputs.npz": answers},
            format=kind.value,
        )
        return {name: load_tensors(answers, name) for name in texts(says["kernels"])}

    def measure(self, kind: Format, path: Path, *, what: str) -> Measured | None:
        """Speed and memory on this machine, if the recipe wants them measured."""
        if not self.recipe.measure.enabled:
            return None
        says = self.task(
            "measure",
            what,
            {"model": path, "inputs.npz": self.scratch / HELD_OUT},
            {},
            format=kind.value,
            runs=self.recipe.measure.runs,
        )
        machine = platform.machine()
        hardware = _HARDWARE.get(machine, machine)
        return codec.decode(Measured, {**says, "hardware": hardware}, what="measurement")


def number(value: Json) -> float:
    """A number that a worker returned."""
    return float(value) if isinstance(value, int | float) else 0.0


def texts(value: Json) -> tuple[str, ...]:
    """A list of texts that a worker returned."""
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _specs(value: Json) -> tuple[TensorSpec, ...]:
    found = value if isinstance(value, list) else []
    return tuple(codec.decode(TensorSpec, item, what="tensor") for item in found)
