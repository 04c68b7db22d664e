"""The bench of one build: its recipe, its scratch folder, and the worker processes it starts."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format, TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_contract.keys import Signer
from edgefleet_converter.arrays import Arrays, load_tensors
from edgefleet_converter.borders import Border, parse_borders
from edgefleet_converter.fitting import Needs
from edgefleet_converter.isolation import run_task
from edgefleet_converter.keeping import Keeper
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.report import Measured
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.toolchain import python_of

Progress = Callable[[str], None]

CALIBRATION: Final = "calibration.npz"
HELD_OUT: Final = "held_out.npz"
_ANSWERS: Final = "answers.npz"
_HARDWARE: Final = {"x86_64": "x86-64", "aarch64": "arm64", "armv7l": "armhf"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a file said: its tensors, its outputs, and what is known of its precision.

    `is_int8`: it computes in 8-bit integers. `quantum`: the step between values of its outputs, 0
    where the file names none. The borders are those of integers that stand for numbers, where
    numbers crossed them.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    arrays: Arrays
    is_int8: bool
    quantum: float
    input_borders: tuple[Border | None, ...] = ()
    output_borders: tuple[Border | None, ...] = ()

    @property
    def has_borders(self) -> bool:
        """Whether steps are needed to get numbers in or out."""
        return any(self.input_borders) or any(self.output_borders)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the work of one build is done. The scratch folder is the caller's to remove.

    `toolchain` is the environment of the frameworks that models come from; None: our own. `cache`
    has results of tasks; by default nothing is kept. `key` is the publisher's, which signs what
    boards are asked to measure.
    """

    recipe: Recipe
    scratch: Path
    progress: Progress
    toolchain: Path | None = None
    cache: Cache = field(default_factory=lambda: Cache(None))
    key: Signer | None = None

    def task(
        self,
        name: str,
        what: str,
        inputs: dict[str, Path],
        outputs: dict[str, Path],
        **params: Json,
    ) -> dict[str, Json]:
        """A task in a worker process; see `run_task`."""
        return self._task(name, what, inputs, outputs, params)

    def foreign_task(
        self,
        name: str,
        what: str,
        inputs: dict[str, Path],
        outputs: dict[str, Path],
        **params: Json,
    ) -> dict[str, Json]:
        """A task in a worker process of the toolchain's Python; see `run_task`."""
        return self._task(name, what, inputs, outputs, params, toolchain=self.toolchain)

    def _task(
        self,
        name: str,
        what: str,
        inputs: dict[str, Path],
        outputs: dict[str, Path],
        params: dict[str, Json],
        *,
        toolchain: Path | None = None,
    ) -> dict[str, Json]:
        self.progress(what)
        return run_task(
            name,
            what=what,
            limits=self.recipe.worker,
            inputs=inputs,
            outputs=outputs,
            params=params,
            python=python_of(toolchain),
            keeper=Keeper(self.cache),
        )

    def run(self, kind: Format, path: Path, *, what: str, data: str = HELD_OUT) -> Answers:
        """What a file says to examples, those held out by default; a new file is loaded first."""
        found = self.scratch / _ANSWERS
        says = self.task(
            "run_model",
            what,
            {"model": path, "inputs.npz": self.scratch / data},
            {"outputs.npz": found},
            format=kind.value,
            want_numbers=self.want_numbers,
        )
        return Answers(
            specs(says["inputs"]),
            specs(says["outputs"]),
            load_tensors(found, "output"),
            says["is_int8"] is True,
            number(says["quantum"]),
            parse_borders(says["input_borders"]),
            parse_borders(says["output_borders"]),
        )

    @property
    def want_numbers(self) -> bool:
        """Whether the steps behind a model take numbers, where it gives integers for them."""
        after = self.recipe.after
        return bool(after) and after[0].step != "dequantize"

    def is_int8(self, kind: Format, path: Path) -> bool:
        """Whether a file that is packed as it is computes in 8-bit integers.

        Raises:
            OperatorError: it is not one that devices load.
        """
        task, local = ("describe", "model") if kind is Format.TFLITE else ("read_onnx", "source")
        params: dict[str, Json] = {"format": kind.value} if kind is Format.TFLITE else {}
        says = self.task(task, f"reading {path.name}", {local: path}, {}, **params)
        return says["is_int8"] is True

    def describe(self, kind: Format, path: Path) -> tuple[tuple[TensorSpec, ...], ...]:
        """What a file takes and gives, unrun."""
        says = self.task("describe", "reading the model", {"model": path}, {}, format=kind.value)
        return specs(says["inputs"]), specs(says["outputs"])

    def needs(self, kind: Format, path: Path) -> Needs:
        """What a file asks of a runtime."""
        what = "reading the operators"
        says = self.task("read_operators", what, {"model": path}, {}, format=kind.value)
        return codec.decode(Needs, says, what="operators")

    def other_kernels(
        self, kind: Format, path: Path, *, data: str = HELD_OUT, with_default: bool = False
    ) -> dict[str, Arrays]:
        """The outputs by the other implementations that run the file; none has to.

        Raises:
            OperatorError: one of them crashed or hung: no device should meet that.
        """
        answers = self.scratch / _ANSWERS
        says = self.task(
            "compare",
            "comparing kernels",
            {"model": path, "inputs.npz": self.scratch / data},
            {"outputs.npz": answers},
            format=kind.value,
            with_default=with_default,
        )
        return {name: load_tensors(answers, name) for name in texts(says["kernels"])}

    def measure(
        self, kind: Format, path: Path, *, what: str, data: str = HELD_OUT
    ) -> Measured | None:
        """Speed and memory on this machine, if the recipe wants them measured."""
        if not self.recipe.measure.enabled:
            return None
        says = self.task(
            "measure",
            what,
            {"model": path, "inputs.npz": self.scratch / data},
            {},
            format=kind.value,
            runs=self.recipe.measure.runs,
        )
        return measured_here(says)


def measured_here(says: dict[str, Json]) -> Measured:
    """What a worker measured, with the hardware class of this machine."""
    return codec.decode(Measured, {**says, "hardware": hardware_here()}, what="measurement")


def hardware_here() -> str:
    """The hardware class of this machine."""
    machine = platform.machine()
    return _HARDWARE.get(machine, machine)


def number(value: Json) -> float:
    """A number that a worker returned."""
    return float(value) if isinstance(value, int | float) else 0.0


def texts(value: Json) -> tuple[str, ...]:
    """A list of texts that a worker returned."""
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def specs(value: Json) -> tuple[TensorSpec, ...]:
    """Tensors that a worker returned."""
    found = value if isinstance(value, list) else []
    return tuple(codec.decode(TensorSpec, item, what="tensor") for item in found)
