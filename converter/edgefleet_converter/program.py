"""From the steps of a recipe to the graph that a device runs: names, nodes, what goes in and out.

    what clients send ── before ──▶ what the model takes ── model ──▶ gives ── after ──▶ clients get

A model with one input needs no names: each step takes what the one before it gave. Else a tensor
goes to the input of the model that has its name, and what no step gives is what clients send. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from edgefleet_contract.bundle import TensorSpec, is_safe_path
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.graph import MODEL, Node, StatePair, check_graph
from edgefleet_converter.borders import Border
from edgefleet_converter.recipe_steps import AskedStep

LABELS: Final = "labels.txt"
STEP_FILES: Final = "steps"


@dataclass(frozen=True, slots=True)
class Linked:
    """The steps of a recipe around a model whose tensors have names.

    Args:
        sent: what clients send, by name and in order.
        before: the steps until the model.
        fed: what the model takes, in the order of its inputs.
        given: what the model gives, in the order of its outputs.
        after: the steps behind it.
        got: what clients get.
        state: what a sequence carries on, beside all these.
    """

    sent: tuple[str, ...]
    before: tuple[Node, ...]
    fed: tuple[str, ...]
    given: tuple[str, ...]
    after: tuple[Node, ...]
    got: tuple[str, ...]
    state: tuple[StatePair, ...] = ()

    def nodes(
        self,
        model: str,
        input_borders: Sequence[Border | None] = (),
        output_borders: Sequence[Border | None] = (),
    ) -> tuple[Node, ...]:
        """All of it, with the path of the model and the borders of its file."""
        ins = _crossings(self.fed, input_borders, "quantized")
        outs = _crossings(self.given, output_borders, "quantized")
        return (
            *self.before,
            *(border.quantize(name, crossed) for name, crossed, border in ins if border),
            Node(MODEL, tuple(i[1] for i in ins), tuple(o[1] for o in outs), model),
            *(border.dequantize(crossed, name) for name, crossed, border in outs if border),
            *self.after,
        )

    @property
    def needs_nodes(self) -> bool:
        """Whether there is anything beside the model."""
        return bool(self.before or self.after) or self.got != tuple(
            name for name in self.given if name not in {pair.output for pair in self.state}
        )


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of steps lie: the recipe's path -> the bundle's. `labels`: there are any."""

    places: dict[str, str]
    labels: bool

    def of(self, step: AskedStep) -> str:
        """The file of a step in the bundle; empty where it has none."""
        if step.takes_labels:
            return LABELS if self.labels else ""
        return self.places.get(step.file, "")


def place_files(steps: Iterable[AskedStep]) -> dict[str, str]:
    """The recipe's path of each file beside the labels -> its path in the bundle.

    Raises:
        OperatorError: two of one name, or a name that a bundle cannot have.
    """
    found: dict[str, str] = {}
    for step in steps:
        if not step.file or step.takes_labels:
            continue
        path = f"{STEP_FILES}/{PurePath(step.file).name}"
        if not is_safe_path(path):
            raise OperatorError(
                f"{step.file!r} cannot be the name of a file of a bundle",
                hint="lower-case letters, digits, '.', '_' and '-', at most 64",
            )
        if path in found.values() and step.file not in found:
            raise OperatorError(f"two files of steps are called {PurePath(step.file).name!r}")
        found[step.file] = path
    return found


def link(
    before: Sequence[AskedStep],
    after: Sequence[AskedStep],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    files: Files,
    state: Sequence[StatePair] = (),
    wanted: Sequence[str] = (),
) -> Linked:
    """Lay the steps around a model.

    Args:
        before: the steps until the model.
        after: the steps behind it.
        inputs: the names of the model's inputs, in its order.
        outputs: the names of the model's outputs, in its order.
        files: where the files of steps lie.
        state: pairs of the model's tensors that a sequence carries on.
        wanted: what clients get; empty: what the last step gives.

    Raises:
        OperatorError: a name is missing or stands twice; the step is named.
    """
    carried = {pair.input for pair in state}
    returned = {pair.output for pair in state}
    strangers = sorted((carried - {*inputs}) | (returned - {*outputs}))
    if strangers:
        raise OperatorError(
            f"state: the model has no tensor {strangers[0]!r}",
            hint=f"it takes {', '.join(inputs)}; it gives {', '.join(outputs)}",
        )
    free = [name for name in inputs if name not in carried]
    plain = [name for name in outputs if name not in returned]
    one = free[0] if len(free) == 1 else ""
    nodes = _line(before, one, files, taken={*inputs, *outputs}, where="before")
    made = {name for node in nodes for name in node.outputs}
    fed = {name: name for name in inputs}
    if one and nodes and one not in made:
        fed[one] = nodes[-1].outputs[0]
    sent = _loose(nodes)
    sent += [name for name in free if fed[name] not in made and name not in sent]
    # A step behind the model may take what clients sent, such as the size of an image.
    known = {*sent, *made, *inputs, *outputs}
    behind = _line(after, plain[0] if plain else "", files, taken=known, where="after")
    got = tuple(wanted) or (behind[-1].outputs if behind else tuple(plain))
    linked = Linked(
        tuple(sent), tuple(nodes), tuple(fed[n] for n in inputs), tuple(outputs), tuple(behind),
        got, tuple(state),
    )  # fmt: skip
    _check(linked, carried, returned)
    return linked


def _check(linked: Linked, carried: set[str], returned: set[str]) -> None:
    try:
        check_graph(
            linked.nodes(LABELS), (*linked.sent, *carried), (*linked.got, *returned), "the steps"
        )
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None
    if returned & {*linked.got}:
        raise OperatorError(f"outputs: {min(returned & {*linked.got})!r} is state, kept by devices")


def _line(
    steps: Sequence[AskedStep], first: str, files: Files, *, taken: set[str], where: str
) -> list[Node]:
    """The steps as nodes, each after the one before it where it names nothing else."""
    found: list[Node] = []
    used = {*taken, *(name for step in steps for name in (*step.inputs, *step.outputs))}
    follows = first
    for i, step in enumerate(steps):
        if not step.inputs and not follows:
            raise OperatorError(
                f"{where}[{i}] ({step.step}): the model has several inputs: say which tensor",
                hint='inputs = ["…"], outputs = ["…"]; a tensor goes to the input of its name',
            )
        path = files.of(step)
        outputs = step.outputs
        if not outputs:
            names = step.default_outputs(with_labels=bool(path))
            outputs = tuple(_fresh(name, used) for name in names)
            used |= {*outputs}
        node = Node(step.step, step.inputs or (follows,), outputs, path, dict(step.settings))
        found.append(node)
        follows = outputs[0]
    return found


def _fresh(name: str, used: set[str]) -> str:
    """A name that nothing has yet: `resize`, `resize.2`, …"""
    found, count = name, 1
    while found in used:
        count += 1
        found = f"{name}.{count}"
    return found


def _loose(nodes: Sequence[Node]) -> list[str]:
    """What nodes take that none before them gave, in the order of use."""
    made: set[str] = set()
    found: list[str] = []
    for node in nodes:
        found += [name for name in node.inputs if name not in made and name not in found]
        made |= {*node.outputs}
    return found


def _crossings(
    names: Sequence[str], borders: Sequence[Border | None], word: str
) -> list[tuple[str, str, Border | None]]:
    """Each name, what it is called on the model's side of its border, and the border."""
    padded = [*borders, *[None] * (len(names) - len(borders))]
    return [
        (name, f"{name}.{word}" if border else name, border)
        for name, border in zip(names, padded, strict=True)
    ]


def any_size(shape: Sequence[int], free: Sequence[int]) -> tuple[int, ...]:
    """A shape whose axes in `free` may have any size."""
    return tuple(-1 if axis in free else size for axis, size in enumerate(shape))


def tell(specs: Sequence[TensorSpec]) -> list[tuple[str, str, int]]:
    """What must agree between the variants of a bundle: names, dtypes, ranks, in order."""
    return [(spec.name, spec.dtype, len(spec.shape)) for spec in specs]
