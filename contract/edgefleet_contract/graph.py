"""What a variant does beside running one model: its steps, joined into a graph, and its state.

A graph is a list of nodes in the order in which they run. A node takes tensors by name and gives
tensors by name: what a client sends stands first, what a node gives is named once, and what a
client gets was given by some node. So there is no cycle to look for, and a reader sees the order.

What a step does, and what its settings are, is said in docs/spec/bundle.md, section 9, and done in
`edgefleet_processing`. Here only the shape of the graph is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edgefleet_contract.errors import Malformed

MODEL: Final = "model"
"""The operation of a node that runs a model file; all others are steps."""

MAX_NODES: Final = 64


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. `inputs` and `outputs` name tensors of the graph.

    For `model`, they stand in the order of the model's own inputs and outputs, as the model file
    has them; a step's outputs may be named from the first on, and those that are not are dropped.
    `file` is the model, or what else of the bundle a step needs (a vocabulary, labels).
    `settings` are the step's own: integers, booleans, text, lists of them; a number that is not an
    integer is text, `"0.485"` or `"1/255"`.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    file: str = ""
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StatePair:
    """A tensor that a sequence carries on: what comes out as `output` goes in as `input` next.

    A sequence begins with zeros (or empty text), a size that may vary being 1.
    """

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Program:
    """What a variant does beside running its one model, or instead of it.

    Without `nodes` the model takes what the variant takes, and gives what it gives. `state` are
    tensors that clients neither send nor get: a sequence carries them on. `hidden_state` says that
    the model file keeps such tensors by itself, from one run to the next.
    """

    nodes: tuple[Node, ...] = ()
    state: tuple[StatePair, ...] = ()
    hidden_state: bool = False

    def __post_init__(self) -> None:
        if not self.nodes and not self.state and not self.hidden_state:
            raise Malformed("a program that says nothing is left out")

    @property
    def is_stateful(self) -> bool:
        """Whether an answer depends on what was asked before."""
        return bool(self.state) or self.hidden_state


def check_graph(
    nodes: tuple[Node, ...], inputs: tuple[str, ...], outputs: tuple[str, ...], what: str
) -> None:
    """Hold a graph against what a variant takes and gives.

    Raises:
        Malformed: naming the node, and the tensor that is missing or named twice.
    """
    if len(nodes) > MAX_NODES:
        raise Malformed(f"{what}: {len(nodes)} nodes, at most {MAX_NODES} are run")
    known = set(inputs)
    for i, node in enumerate(nodes):
        where = f"{what}: node {i} ({node.op[:40]})"
        if not node.inputs or not node.outputs:
            raise Malformed(f"{where} takes nothing or gives nothing")
        for name in node.inputs:
            if name not in known:
                raise Malformed(f"{where} takes {name[:80]!r}, which nothing before it gives")
        for name in node.outputs:
            if name in known:
                raise Malformed(f"{where} gives {name[:80]!r}, which is there already")
            known.add(name)
        if (node.op == MODEL) and not node.file:
            raise Malformed(f"{where} names no file")
    missing = [name for name in outputs if name not in known]
    if missing:
        raise Malformed(f"{what}: nothing gives the output {missing[0][:80]!r}")
