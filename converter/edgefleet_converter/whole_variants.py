"""A variant that is a program: the steps of the recipe around a model, tried as clients use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import Format, TensorSpec
from edgefleet_contract.graph import Node, Program
from edgefleet_converter import gate, golden
from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.bench import Answers, Bench
from edgefleet_converter.decisions import decided
from edgefleet_converter.golden import Chosen
from edgefleet_converter.golden_pool import Pool, kept, whole_pool
from edgefleet_converter.labels import check_width
from edgefleet_converter.program import Linked, any_size
from edgefleet_converter.program_runner import Whole, ready
from edgefleet_converter.report import Measured
from edgefleet_converter.wholes import (
    Sequence,
    WholeAnswers,
    input_spec,
    measure_whole,
    run_whole,
)
from edgefleet_processing import StepFailed
from edgefleet_processing.graph import Graph


@dataclass(frozen=True, slots=True)
class Setting:
    """What the variants of a bundle share: steps, labels, files, and what clients send, in order.

    `files` are those that steps need, by their path in the bundle; `classes` those of what clients
    send, [N], where they are known.
    """

    linked: Linked
    labels: tuple[str, ...]
    files: Mapping[str, Path]
    sent: Arrays
    sequence: Sequence
    classes: NDArray[np.int64] | None = None

    def is_needed(self, answers: Answers | None) -> bool:
        """Whether a model needs a program around it."""
        return (
            bool(self.sequence)
            or self.linked.needs_nodes
            or (answers is not None and answers.has_borders)
        )


@dataclass(frozen=True, slots=True)
class TriedWhole:
    """A program that was tried: its golden vectors, the classes that clients get, its cost."""

    answers: WholeAnswers
    vectors: tuple[Arrays, Arrays]
    chosen: Chosen
    kernels: tuple[str, ...]
    classes: NDArray[np.int64] | None
    measured: Measured | None
    program: Program


def try_whole(
    bench: Bench,
    setting: Setting,
    kind: Format,
    place: tuple[str, Path],
    answers: Answers | None,
    quantum: float,
) -> TriedWhole:
    """Run the recipe's steps around a model file, choose golden vectors, and measure.

    Args:
        bench: does the work.
        setting: the steps and what clients send.
        kind: of file.
        place: the model's path in the bundle, and where it lies.
        answers: the model's own; None where it is stateful.
        quantum: the step of what it gives; 0 if it is a float model.

    Raises:
        OperatorError: a step cannot work on an example, or an answer is not finite.
    """
    name, path = place
    whole = whole_of(bench, setting, kind, place, answers)
    found = run_whole(
        bench, whole, setting.sent, setting.sequence, what=f"running {path.parent.name}"
    )
    found = replace(found, outputs=_declared(bench, setting, kind, path, answers, found))
    gate.refuse_not_finite(found.arrays, what=path.parent.name)
    own = found.public(setting.sequence)
    classes = decided(own, setting.labels)
    if setting.labels and setting.sequence and not any(golden.is_exact(a) for a in own):
        check_width(setting.labels, own[0], "the recipe")
    step = quantum or found.quantum(name, is_int8=False)
    pool = whole_pool(
        bench, whole, found, setting.sequence, setting.sent, {name: step}, setting.classes
    )
    chosen = _choose(bench, setting, found, pool, classes)
    measured = measure_whole(
        bench, whole, found, setting.sequence, what=f"measuring {path.parent.name}"
    )
    has_nodes = setting.linked.needs_nodes or (answers is not None and answers.has_borders)
    program = Program(
        whole.nodes if has_nodes else (), setting.sequence.state, setting.sequence.hidden
    )
    vectors = kept(pool, chosen.rows, found.arrays)
    return TriedWhole(found, vectors, chosen, (*pool.kernels,), classes, measured, program)


def _declared(
    bench: Bench,
    setting: Setting,
    kind: Format,
    path: Path,
    answers: Answers | None,
    found: WholeAnswers,
) -> tuple[TensorSpec, ...]:
    """The outputs as the model declares them where it gives them itself, else as they came out."""
    gives = bench.describe(kind, path)[1] if answers is None else answers.outputs
    own = dict(zip(setting.linked.given, gives, strict=True))
    return tuple(own.get(spec.name, spec) for spec in found.outputs)


def classes_of(
    bench: Bench, setting: Setting, kind: Format, path: Path, answers: Answers
) -> NDArray[np.int64] | None:
    """The classes that clients would get with another model file in the same place."""
    whole = whole_of(bench, setting, kind, (path.name, path), answers)
    found = run_whole(bench, whole, setting.sent, setting.sequence, what="running the float model")
    return decided(found.public(setting.sequence), setting.labels)


def whole_of(
    bench: Bench,
    setting: Setting,
    kind: Format,
    place: tuple[str, Path],
    answers: Answers | None,
) -> Whole:
    """The program of a model file."""
    name, path = place
    linked = setting.linked
    takes = bench.describe(kind, path)[0] if answers is None else answers.inputs
    borders = ((), ()) if answers is None else (answers.input_borders, answers.output_borders)
    own = {
        called: TensorSpec(called, spec.dtype, spec.shape)
        for called, spec in zip(linked.fed, takes, strict=True)
    }
    graph = ready(linked.before, setting.files)
    batch = takes[0].shape[0] if takes[0].shape else -1
    sent: dict[str, TensorSpec] = {}
    for called, array in zip(linked.sent, setting.sent, strict=True):
        if called in own:
            sent[called] = own[called]
        elif setting.sequence:
            sent[called] = input_spec(called, array[0], np.shape(array[0])[0])
        else:
            spec = input_spec(called, array, batch)
            sizes = any_size(spec.shape, _free_axes(graph, linked, setting.sent, called))
            sent[called] = TensorSpec(called, spec.dtype, sizes)
    carried = {pair.input: own[pair.input] for pair in linked.state}
    names = (*sent, *carried) if linked.needs_nodes else tuple(own)
    inputs = tuple((sent | carried)[one] for one in names)
    returned = tuple(pair.output for pair in linked.state)
    outputs = (*linked.got, *returned) if linked.needs_nodes else linked.given
    nodes = linked.nodes(name, *borders)
    return Whole(kind, nodes, inputs, outputs, {name: path, **_used(nodes, setting.files)})


def _used(nodes: tuple[Node, ...], files: Mapping[str, Path]) -> dict[str, Path]:
    return {node.file: files[node.file] for node in nodes if node.file in files}


def _free_axes(graph: Graph, linked: Linked, sent: Arrays, name: str) -> list[int]:
    """The axes of what clients send along which any size will do.

    Each is tried: one more row of pixels or samples must leave the model what it takes.
    """
    feeds = {called: a[:1] for called, a in zip(linked.sent, sent, strict=True)}
    wanted = [one for one in linked.fed if one not in feeds]
    usual = _shapes(graph, feeds, wanted)
    found = []
    for axis in range(1, feeds[name].ndim):
        array = feeds[name]
        longer = np.concatenate([array, array.take([-1], axis)], axis)
        if _shapes(graph, {**feeds, name: longer}, wanted) == usual:
            found.append(axis)
    return found


def _shapes(graph: Graph, feeds: dict[str, Array], wanted: list[str]) -> object:
    try:
        return {one: array.shape for one, array in graph.run(feeds, wanted, {}).items()}
    except StepFailed:
        return None


def _choose(
    bench: Bench,
    setting: Setting,
    found: WholeAnswers,
    pool: Pool,
    classes: NDArray[np.int64] | None,
) -> Chosen:
    count = bench.recipe.golden.vectors
    if setting.sequence.hidden:  # one sequence from its beginning: the first, as far as it goes
        end = [start for start in setting.sequence.starts if start > 0][:1]
        count = min([count, len(pool.given[0]), *([] if pool.is_drawn else end)])
    return golden.choose_whole(
        pool.given,
        tuple(pool.kernels.values()),
        pool.nudges,
        count=count,
        classes=decided(pool.given, setting.labels) if pool.is_drawn else classes,
        batch=-1 if setting.sequence else found.batch,
        in_order=setting.sequence.hidden,
        held_out=pool.held_out,
    )
