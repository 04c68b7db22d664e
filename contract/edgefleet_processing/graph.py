"""Runs the nodes of a program: made ready once, then quick; pure but for the models it is given.

    graph = prepare(program.nodes, files)             # settings decoded, files parsed
    outputs = graph.run(feeds, wanted, models)        # as often as there are requests

A model is a function from the tensors that its node takes to those that it gives, in the order of
the model's own inputs and outputs; it raises `BadInput` for tensors that it cannot work on. Who
opens it, and on which runtime, is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np

from edgefleet_contract import codec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed
from edgefleet_contract.graph import MODEL, Node
from edgefleet_processing.errors import BadInput, StepFailed
from edgefleet_processing.step import File, Run
from edgefleet_processing.table import STEPS
from edgefleet_processing.tensors import MAX_HELD, Array

Model: TypeAlias = Callable[[tuple[Array, ...]], tuple[Array, ...]]


@dataclass(frozen=True, slots=True)
class ReadyNode:
    """A node that can run. `step` is None for a model; `is_after_model`: what it takes is made, in
    part at least, of what a model gave; `spent` are the tensors that no later node takes."""

    node: Node
    name: str
    step: Run | None
    is_after_model: bool
    spent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes of a program, ready."""

    nodes: tuple[ReadyNode, ...]

    def run(
        self, feeds: Mapping[str, Array], wanted: Sequence[str], models: Mapping[str, Model]
    ) -> dict[str, Array]:
        """The tensors that are wanted, by name.

        A tensor is let go as soon as no later node takes it. Nothing that was fed is changed.

        Args:
            feeds: what the variant takes, by name.
            wanted: what the variant gives.
            models: what runs each model file, by its path.

        Raises:
            StepFailed: naming the node. What else a model raises passes through.
        """
        tensors = dict(feeds)
        kept = {name: tensors[name] for name in wanted if name in tensors}
        with np.errstate(all="ignore"):  # infinities and NaN are values, and go where they go
            for ready in self.nodes:
                given = _run(ready, tuple(tensors[name] for name in ready.node.inputs), models)
                if len(given) < len(ready.node.outputs):
                    raise StepFailed(
                        f"{ready.name} gave {len(given)} tensors, not {len(ready.node.outputs)}",
                        input_is_to_blame=False,
                    )
                named = dict(zip(ready.node.outputs, given, strict=False))
                tensors |= named
                kept |= {name: named[name] for name in wanted if name in named}
                for name in ready.spent:
                    del tensors[name]
                held = sum(array.nbytes for array in (tensors | kept).values())
                if held > MAX_HELD:
                    raise StepFailed(
                        f"{ready.name} leaves {held} bytes in tensors, at most {MAX_HELD} are held",
                        input_is_to_blame=not ready.is_after_model,
                    )
        return kept


def prepare(nodes: Sequence[Node], files: Mapping[str, bytes]) -> Graph:
    """The nodes, ready: `check_graph` has held them against the variant.

    Args:
        nodes: of a program.
        files: what steps need, by path: all that `step_files` names.

    Raises:
        Malformed: an unknown step, settings or a file that it does not take; the node is named.
    """
    ready = []
    after_model: set[str] = set()
    last = {name: i for i, node in enumerate(nodes) for name in (*node.outputs, *node.inputs)}
    for i, node in enumerate(nodes):
        name = f"node {i} ({node.op[:40]})"
        is_after = not after_model.isdisjoint(node.inputs)
        if is_after or node.op == MODEL:
            after_model.update(node.outputs)
        spent = tuple(tensor for tensor in {*node.inputs, *node.outputs} if last[tensor] == i)
        step = None if node.op == MODEL else _prepare(node, name, files)
        ready.append(ReadyNode(node, name, step, is_after, spent))
    return Graph(tuple(ready))


def step_files(nodes: Sequence[Node]) -> tuple[str, ...]:
    """The files that steps need: vocabularies and labels."""
    return tuple(dict.fromkeys(n.file for n in nodes if n.op != MODEL and n.file))


def model_files(nodes: Sequence[Node]) -> tuple[str, ...]:
    """The model files, in the order in which they are run first."""
    return tuple(dict.fromkeys(n.file for n in nodes if n.op == MODEL))


def _prepare(node: Node, name: str, files: Mapping[str, bytes]) -> Run:
    step = STEPS.get(node.op)
    if step is None:
        raise Malformed(f"{name}: no such step", hint=f"steps are: {', '.join(sorted(STEPS))}")
    for what, count, allowed in (
        ("takes", len(node.inputs), step.takes),
        ("gives", len(node.outputs), step.gives),
    ):
        if count not in allowed:
            raise Malformed(
                f"{name} {what} {allowed.start} to {allowed.stop - 1} tensors, has {count}"
            )
    if node.file and step.file is File.NO:
        raise Malformed(f"{name} takes no file")
    if not node.file and step.file is File.MUST:
        raise Malformed(f"{name} needs a file")
    settings: object = codec.decode(step.settings, cast("Json", node.settings), what=name)
    try:
        return step.prepare(settings, files[node.file] if node.file else None)
    except Malformed as error:
        raise Malformed(f"{name}: {error.message}", hint=error.hint) from None


def _run(
    ready: ReadyNode, taken: tuple[Array, ...], models: Mapping[str, Model]
) -> tuple[Array, ...]:
    try:
        if ready.step is None:
            return models[ready.node.file](taken)
        return ready.step(taken)
    except BadInput as error:
        blame = not ready.is_after_model
        raise StepFailed(f"{ready.name} {error}", input_is_to_blame=blame) from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # No step is known to raise these; if one does, it costs this request and not the process.
        raise StepFailed(f"{ready.name} failed: {error}", input_is_to_blame=False) from error
