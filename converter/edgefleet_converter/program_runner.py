"""A whole program on this desk: the steps that a device runs, around models on their runtimes.

What the tensors of its outputs are is known once it has run. A step that cannot work on an example
says which one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefleet_contract.bundle import Format, TensorSpec
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.graph import Node
from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.runners import Kernels, Runner, open_model
from edgefleet_processing import StepFailed, prepare
from edgefleet_processing.graph import Graph, Model, model_files, step_files


@dataclass(frozen=True, slots=True)
class Whole:
    """A program to run. `files` are where its models and what its steps need lie, by path.

    `inputs` are what goes in, with the sizes that may vary; `outputs` the names of what comes out.
    """

    format: Format
    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    files: Mapping[str, Path]


class ProgramRunner:
    """A program, loaded. `outputs` is empty until it has run; `ranges` are, by path, from 0 to
    the least and to the largest number that a model has given since.

    Args:
        whole: what to run.
        kernels: of the models.
        nudge: what the models' outputs are moved by, up or down at random, by path (integers by
            1): what other processors may make of them.
        seed: of that chance.

    Raises:
        OperatorError: a runtime does not load a model, or a step is not well set.
    """

    def __init__(
        self,
        whole: Whole,
        kernels: Kernels = Kernels.DEFAULT,
        *,
        nudge: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        chance = np.random.default_rng(seed)
        self.inputs = whole.inputs
        self.outputs: tuple[TensorSpec, ...] = ()
        self._wanted = whole.outputs
        self._graph = ready(whole.nodes, whole.files)
        self.ranges: dict[str, tuple[float, float]] = {}
        self._models: dict[str, Model] = {}
        runners: list[Runner] = []
        for path in model_files(whole.nodes):
            runner = open_model(whole.files[path], whole.format, kernels)
            runners.append(runner)
            by = 0.0 if nudge is None else nudge.get(path, 0.0)
            self._models[path] = self._seen(path, _model(runner, path, by, chance))
        self.batch = _batch(runners)
        self.is_int8 = any(runner.is_int8 for runner in runners)

    def _seen(self, path: str, model: Model) -> Model:
        """The model, with the least and largest number that it gave kept in `ranges`."""

        def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
            given = model(taken)
            found = [a for a in given if a.dtype.kind == "f" and a.size]
            low, high = self.ranges.get(path, (0.0, 0.0))
            self.ranges[path] = (
                min([low, *(float(a.min()) for a in found)]),
                max([high, *(float(a.max()) for a in found)]),
            )
            return given

        return run

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs for one batch.

        Raises:
            StepFailed: naming the node.
        """
        feeds = {spec.name: array for spec, array in zip(self.inputs, inputs, strict=True)}
        given = self._graph.run(feeds, self._wanted, self._models)
        found = tuple(given[name] for name in self._wanted)
        if not self.outputs:
            self.outputs = tuple(map(_spec, self._wanted, found))
        return found


def ready(nodes: Sequence[Node], files: Mapping[str, Path]) -> Graph:
    """The nodes, with what their steps need read from disk.

    Raises:
        OperatorError: a file cannot be read, or a step is not well set.
    """
    try:
        return prepare(nodes, {path: files[path].read_bytes() for path in step_files(nodes)})
    except OSError as error:
        raise OperatorError(f"cannot read {error.filename}: {error.strerror}") from None
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None


def run_rows(
    graph: Graph, feeds: Mapping[str, Array], wanted: Sequence[str], *, what: str, rows: int = 256
) -> dict[str, Array]:
    """What steps alone make of any number of examples.

    Raises:
        OperatorError: naming the example, the node and what it found.
    """
    total = len(next(iter(feeds.values())))
    parts: list[dict[str, Array]] = []
    for start in range(0, total, rows):
        batch = {name: array[start : start + rows] for name, array in feeds.items()}
        try:
            parts.append(graph.run(batch, wanted, {}))
        except StepFailed as error:
            tried = range(start, min(start + rows, total))
            raise culprit(
                lambda i: graph.run(_row(feeds, i), wanted, {}), tried, error, what
            ) from None
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def culprit(
    one: Callable[[int], object], tried: range, error: StepFailed, what: str
) -> OperatorError:
    """Which example of a batch a step could not work on: each is tried alone."""
    for i in tried:
        try:
            one(i)
        except StepFailed as alone:
            return OperatorError(f"{what}: example {i}: {alone}")
    return OperatorError(f"{what}: examples {tried.start} to {tried.stop - 1} together: {error}")


def _row(feeds: Mapping[str, Array], i: int) -> dict[str, Array]:
    return {name: array[i : i + 1] for name, array in feeds.items()}


def _model(runner: Runner, path: str, by: float, chance: np.random.Generator) -> Model:
    """What runs a model by the places of its tensors, as a device does: dtypes are exact."""

    def run(taken: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(taken) != len(runner.inputs):
            raise OperatorError(
                f"{path} takes {len(runner.inputs)} tensors, the program gives it {len(taken)}"
            )
        for spec, array in zip(runner.inputs, taken, strict=True):
            if _dtype(array) != spec.dtype or array.ndim != len(spec.shape):
                raise OperatorError(
                    f"{path} takes {spec.name!r} as {spec.dtype} {list(spec.shape)}, "
                    f"the steps give it {_dtype(array)} {list(array.shape)}",
                    hint="a step such as cast, normalise, layout or reshape makes one of the other",
                )
        given = runner.infer(tuple(np.asarray(array, order="C") for array in taken))
        return tuple(_nudged(array, by, chance) for array in given) if by else given

    return run


def _nudged(array: Array, by: float, chance: np.random.Generator) -> Array:
    if array.dtype.kind not in "iuf":
        return array
    step = by if array.dtype.kind == "f" else 1.0  # what an integer is worth is its border's affair
    moved = array.astype(np.float64) + step * chance.choice((-1.0, 1.0), array.shape)
    if array.dtype.kind != "f":
        bounds = np.iinfo(array.dtype.name)
        moved = np.rint(moved).clip(bounds.min, bounds.max)
    found: Array = moved.astype(array.dtype)
    return found


def _batch(runners: Sequence[Runner]) -> int:
    """How many examples a call takes: -1 where every model takes any number."""
    fixed = {r.inputs[0].shape[0] if r.inputs[0].shape else -1 for r in runners} - {-1}
    if len(fixed) > 1:
        raise OperatorError(f"the models take batches of {sorted(fixed)}, which must be one size")
    return fixed.pop() if fixed else -1


def _spec(name: str, array: Array) -> TensorSpec:
    return TensorSpec(name, _dtype(array), tuple(array.shape))


def _dtype(array: Array) -> str:
    return "string" if array.dtype.kind in "OUS" else array.dtype.name
