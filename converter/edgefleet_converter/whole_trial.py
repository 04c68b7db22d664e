"""Tasks of the worker that run a whole program: what clients get, on which kernels, and its cost.

Examples are rows of a batch [N, …], or, where a sequence carries state on, whole calls: row i of
every array is what call i takes. `inputs.npz` then holds what clients send, and `run` adds the
state that went in; `compare` and `measure` take what `run` wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format, TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.graph import Node, StatePair
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors, write_npz
from edgefleet_converter.program_runner import ProgramRunner, Whole, culprit
from edgefleet_converter.runners import OTHER_KERNELS, Kernels, starts
from edgefleet_converter.sequences import run_calls, run_sequence
from edgefleet_converter.trial import import_runtime, timed
from edgefleet_processing import StepFailed

NUDGES: Final = 4
NUDGES_OF_DRAWN: Final = 16  # between the classes, where scores are often equal
_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Job:
    """A program in a worker's folder: `files` are local names by path in the bundle.

    `quanta`: what one step of each model's outputs is, by its path. With `state`, or `hidden_state`
    (the model keeps it by itself), examples are whole calls, and `starts` begin sequences.
    """

    format: Format
    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    files: dict[str, str]
    quanta: dict[str, object]
    state: tuple[StatePair, ...] = ()
    hidden_state: bool = False
    starts: tuple[int, ...] = (0,)

    @property
    def whole(self) -> Whole:
        """What is run."""
        files = {path: Path(local) for path, local in self.files.items()}
        return Whole(self.format, self.nodes, self.inputs, self.outputs, files)

    @property
    def has_calls(self) -> bool:
        """Whether an example is a whole call."""
        return bool(self.state) or self.hidden_state


def run(*, job: Json) -> dict[str, Json]:
    """`outputs.npz`: what clients get for `inputs.npz`, as `output.0 …`, and with state all that
    went in, as `input.0 …`.

    Returns the specs of the outputs, how many examples a call takes (-1: any number), and whether a
    model computes in 8-bit integers.
    """
    asked = _parse(job)
    inputs = load_tensors(Path("inputs.npz"), "input")
    runner = ProgramRunner(asked.whole)
    if asked.has_calls:
        taken, given = run_sequence(
            lambda: runner if not asked.hidden_state else ProgramRunner(asked.whole),
            inputs,
            asked.state,
            starts=asked.starts,
            hidden=asked.hidden_state,
        )
        runner.infer(tuple(array[0] for array in taken))
        write_npz(
            Path("outputs.npz"),
            {f"input.{i}": array for i, array in enumerate(taken)}
            | {f"output.{i}": array for i, array in enumerate(given)},
        )
    else:
        save_tensors(Path("outputs.npz"), "output", run_batches(runner, inputs))
    return {
        "outputs": [codec.encode(spec) for spec in runner.outputs],
        "batch": runner.batch,
        "is_int8": runner.is_int8,
        "ranges": {path: list(found) for path, found in runner.ranges.items()},
    }


def compare(*, job: Json, rows: int = 0) -> dict[str, Json]:
    """`outputs.npz`: the same by each of the other kernels that run the models, and by the default
    ones with what the models give moved by a quantum, up or down by chance.

    With `rows`, only the first so many examples are moved, four times as often.

    Its arrays are `<name>.<output>`; `kernels` and `nudges` are the names.
    """
    asked = _parse(job)
    inputs = load_tensors(Path("inputs.npz"), "input")
    found: dict[str, Arrays] = {}
    for kernels in OTHER_KERNELS[asked.format]:
        try:
            found[kernels.value] = _again(
                asked, partial(ProgramRunner, asked.whole, kernels), inputs, kernels
            )
        except OperatorError:
            continue  # the default kernels run the files: that was the condition
    names = list(found)
    quanta = {path: float(str(value)) for path, value in asked.quanta.items()}
    moved = tuple(array[:rows] for array in inputs) if rows else inputs
    for seed in range(NUDGES_OF_DRAWN if rows else NUDGES):
        nudged = partial(ProgramRunner, asked.whole, nudge=quanta, seed=seed)
        found[f"nudge{seed}"] = _again(asked, nudged, moved)
    arrays = {
        f"{name}.{i}": array for name, given in found.items() for i, array in enumerate(given)
    }
    write_npz(Path("outputs.npz"), arrays)
    return {"kernels": list(names), "nudges": [name for name in found if name not in names]}


def measure(*, job: Json, runs: int) -> dict[str, Json]:
    """What the whole costs, as `trial.measure` measures a model."""
    asked = _parse(job)
    import_runtime(asked.format)
    examples = load_tensors(Path("inputs.npz"), "input")
    whole_calls = asked.has_calls
    return timed(lambda: ProgramRunner(asked.whole), examples, runs, whole_calls=whole_calls)


def run_batches(
    runner: ProgramRunner, inputs: Arrays, kernels: Kernels = Kernels.DEFAULT
) -> Arrays:
    """The outputs for any number of examples, in batches that the models take.

    Raises:
        OperatorError: naming the example that a step cannot work on.
    """
    total = len(inputs[0])
    size = runner.batch
    rows = _ROWS if size == -1 else size
    parts: list[Arrays] = []
    for start, end in starts(total, rows, kernels if size == -1 else Kernels.DEFAULT):
        wanted = end - start
        batch = _rows(inputs, start, wanted, size)
        try:
            given = runner.infer(batch)
        except StepFailed as error:
            tried = range(start, start + wanted)
            raise culprit(
                lambda i: runner.infer(_rows(inputs, i, 1, size)), tried, error, "held-out data"
            ) from None
        for spec, array in zip(runner.outputs, given, strict=True):
            if array.ndim == 0 or len(array) != len(batch[0]):
                raise OperatorError(
                    f"output {spec.name!r} has shape {list(array.shape)} for {len(batch[0])} "
                    "examples: its first dimension does not count them"
                )
        parts.append(tuple(array[:wanted] for array in given))
    try:
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    except ValueError:
        raise OperatorError("the outputs of different examples have different shapes") from None


def _again(
    asked: Job,
    opened: Callable[[], ProgramRunner],
    inputs: Arrays,
    kernels: Kernels = Kernels.DEFAULT,
) -> Arrays:
    if asked.has_calls:
        return run_calls(opened, inputs, starts=asked.starts if asked.hidden_state else (0,))
    return run_batches(opened(), inputs, kernels)


def _rows(inputs: Arrays, start: int, count: int, size: int) -> Arrays:
    """Some examples; repeated to a whole batch where its size is fixed."""
    batch = tuple(array[start : start + count] for array in inputs)
    if size <= count:
        return batch
    return tuple(
        np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)]) for array in batch
    )


def _parse(job: Json) -> Job:
    return codec.decode(Job, job, what="job")
