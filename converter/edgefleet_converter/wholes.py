"""A whole program on the bench: what clients get for the held-out examples, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract import codec
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_contract.graph import StatePair
from edgefleet_converter.arrays import Array, Arrays, load_tensors, save_tensors
from edgefleet_converter.bench import Bench, measured_here, number, specs, texts
from edgefleet_converter.golden import FLOAT_TOLERANCE
from edgefleet_converter.program_runner import Whole
from edgefleet_converter.report import Measured

_INPUTS: Final = "whole_inputs.npz"
_OUTPUTS: Final = "whole_outputs.npz"


@dataclass(frozen=True, slots=True)
class Sequence:
    """What makes examples whole calls: the state that is carried on, and where sequences begin."""

    state: tuple[StatePair, ...] = ()
    hidden: bool = False
    starts: tuple[int, ...] = (0,)

    def __bool__(self) -> bool:
        return bool(self.state) or self.hidden


@dataclass(frozen=True, slots=True)
class WholeAnswers:
    """What a program said: its outputs as they are declared; all that went in and came out.

    `batch` is how many examples a call takes, -1 for any number. `ranges` are the numbers that each
    model gave, by path.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    taken: Arrays
    arrays: Arrays
    batch: int
    is_int8: bool
    ranges: Mapping[str, tuple[float, float]]

    def quantum(self, path: str, *, is_int8: bool) -> float:
        """One step of a model's outputs: of 8-bit integers, or of float32's own rounding."""
        low, high = self.ranges.get(path, (0.0, 0.0))
        if is_int8:
            return (high - low) / 255
        return FLOAT_TOLERANCE * max(1.0, -low, high)

    def public(self, sequence: Sequence) -> Arrays:
        """What clients get: the outputs, less the state."""
        kept = {pair.output for pair in sequence.state}
        return tuple(
            array
            for spec, array in zip(self.outputs, self.arrays, strict=True)
            if spec.name not in kept
        )


@dataclass(frozen=True, slots=True)
class Others:
    """The outputs by other kernels, by name, and with what the models give moved by a quantum."""

    kernels: dict[str, Arrays] = field(default_factory=dict)
    nudges: tuple[Arrays, ...] = ()


def run_whole(
    bench: Bench, whole: Whole, sent: Arrays, sequence: Sequence, *, what: str
) -> WholeAnswers:
    """What clients get for what they send."""
    save_tensors(bench.scratch / _INPUTS, "input", sent)
    found = bench.scratch / _OUTPUTS
    says = _task(bench, "run_whole", what, whole, sequence, {}, {"outputs.npz": found})
    taken = load_tensors(found, "input") if sequence else sent
    declared = specs(says["outputs"])
    if not sequence:
        batch = int(number(says["batch"]))
        declared = tuple(replace(one, shape=(batch, *one.shape[1:])) for one in declared)
    return WholeAnswers(
        whole.inputs,
        declared,
        taken,
        load_tensors(found, "output"),
        int(number(says["batch"])),
        says["is_int8"] is True,
        _ranges(says["ranges"]),
    )


def compare_whole(
    bench: Bench,
    whole: Whole,
    answers: WholeAnswers,
    sequence: Sequence,
    quanta: Mapping[str, float],
    *,
    rows: int = 0,
) -> Others:
    """The same by other kernels, and with each model's outputs moved by its quantum (of the first
    `rows`, if that is said)."""
    save_tensors(bench.scratch / _INPUTS, "input", answers.taken)
    found = bench.scratch / _OUTPUTS
    made = {"outputs.npz": found}
    says = _task(
        bench, "compare_whole", "comparing kernels", whole, sequence, quanta, made, rows=rows
    )
    return Others(
        {name: load_tensors(found, name) for name in texts(says["kernels"])},
        tuple(load_tensors(found, name) for name in texts(says["nudges"])),
    )


def measure_whole(
    bench: Bench, whole: Whole, answers: WholeAnswers, sequence: Sequence, *, what: str
) -> Measured | None:
    """Speed and memory of the whole on this machine, if the recipe wants them measured."""
    if not bench.recipe.measure.enabled:
        return None
    save_tensors(bench.scratch / _INPUTS, "input", answers.taken)
    runs = bench.recipe.measure.runs
    return measured_here(_task(bench, "measure_whole", what, whole, sequence, {}, {}, runs=runs))


def _ranges(value: Json) -> dict[str, tuple[float, float]]:
    found = value if isinstance(value, dict) else {}
    return {
        path: (number(ends[0]), number(ends[1]))
        for path, ends in found.items()
        if isinstance(ends, list)
    }


def input_spec(name: str, example: Array, batch: int) -> TensorSpec:
    """What clients send, by an example of it with the batch in front."""
    kind = "string" if example.dtype.kind in "OUS" else example.dtype.name
    return TensorSpec(name, kind, (batch, *np.shape(example)[1:]))


def _task(
    bench: Bench,
    name: str,
    what: str,
    whole: Whole,
    sequence: Sequence,
    quanta: Mapping[str, float],
    outputs: dict[str, Path],
    **params: Json,
) -> dict[str, Json]:
    local = {path: f"file.{i}" for i, path in enumerate(whole.files)}
    job: dict[str, Json] = {
        "format": whole.format.value,
        "nodes": [codec.encode(node) for node in whole.nodes],
        "inputs": [codec.encode(spec) for spec in whole.inputs],
        "outputs": list(whole.outputs),
        "files": dict(local),
        "quanta": dict(quanta),
        "state": [codec.encode(pair) for pair in sequence.state],
        "hidden_state": sequence.hidden,
        "starts": list(sequence.starts),
    }
    files = {local[path]: place for path, place in whole.files.items()}
    inputs = {"inputs.npz": bench.scratch / _INPUTS, **files}
    return bench.task(name, what, inputs, outputs, job=job, **params)
