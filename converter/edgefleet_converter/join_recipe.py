"""What is wished of a join: models that answer as one, and the graph between them, read from TOML.

Sections that a recipe has, too, mean the same here: data, golden, measure, limits, drift, worker,
card.
The format is docs/spec/recipe.md, section 9.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format, is_name
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_converter.card import Card
from edgefleet_converter.recipe import (
    Data,
    Headroom,
    Measure,
    Recipe,
    Worker,
    plain_json,
)
from edgefleet_converter.recipe_drift import Drift, drift_checks
from edgefleet_converter.recipe_golden import Golden
from edgefleet_converter.recipe_steps import AskedStep, step_table
from edgefleet_converter.targets import Target

_NODE = ("model", "inputs", "outputs")


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A model to join: a bundle, or a file for each format.

    `variants` of the bundle that may be taken, the first of each format being it; none: any.
    """

    bundle: str = ""
    variants: tuple[str, ...] = ()
    onnx: str = ""
    tflite: str = ""

    def file(self, kind: Format) -> str:
        """The path of its file of a format; empty where it has none."""
        return self.tflite if kind is Format.TFLITE else self.onnx


@dataclass(frozen=True, slots=True)
class AskedNode:
    """A node of the graph: a model by its name, or a step."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    model: str = ""
    step: AskedStep | None = None


@dataclass(frozen=True, slots=True)
class JoinBudget:
    """The least accuracy of the whole, and how much less than the best a variant may have."""

    min_accuracy: float = 0.0
    max_accuracy_drop: float = 0.02


@dataclass(frozen=True, slots=True)
class JoinRecipe:
    """Everything that a join is told beside the name, the version and the keys."""

    data: Data
    models: dict[str, AskedModel]
    nodes: tuple[AskedNode, ...]
    outputs: tuple[str, ...]
    formats: tuple[Format, ...] = (Format.ONNX, Format.TFLITE)
    budget: JoinBudget = field(default_factory=JoinBudget)
    golden: Golden = field(default_factory=Golden)
    measure: Measure = field(default_factory=Measure)
    limits: Headroom = field(default_factory=Headroom)
    drift: Drift = field(default_factory=Drift)
    worker: Worker = field(default_factory=Worker)
    card: Card = field(default_factory=Card)
    folder: str = field(default=".", metadata={"is_inner": True})

    def __post_init__(self) -> None:
        used = {node.model for node in self.nodes if node.model}
        for says, holds in (
            ("formats: names none, or one twice", 0 < len({*self.formats}) == len(self.formats)),
            ("outputs: names none", bool(self.outputs)),
            ("nodes: none runs a model", bool(used)),
            *((f"nodes: there is no models.{name}", name in self.models) for name in sorted(used)),
            *((f"models.{name}: no node runs it", name in used) for name in self.models),
            *((f"models: {name[:80]!r} cannot name one", is_name(name)) for name in self.models),
            *(
                (
                    f"models.{name}: either bundle, or onnx and tflite",
                    bool(one.bundle) != bool(one.onnx or one.tflite),
                )
                for name, one in self.models.items()
            ),
            ("budget.min_accuracy: 0 to 1", 0 <= self.budget.min_accuracy <= 1),
            ("budget.max_accuracy_drop: 0 to 1", 0 <= self.budget.max_accuracy_drop <= 1),
            *drift_checks(self.drift),
        ):
            if not holds:
                raise Malformed(says)

    @property
    def steps(self) -> tuple[AskedStep, ...]:
        """The steps among the nodes."""
        return tuple(node.step for node in self.nodes if node.step is not None)

    def as_recipe(self) -> Recipe:
        """What a bench and the labels need of it."""
        return Recipe(
            data=self.data,
            targets=(Target.ONNX_AS_IS,),
            golden=self.golden,
            measure=self.measure,
            limits=self.limits,
            drift=self.drift,
            worker=self.worker,
            card=self.card,
            after=self.steps,
            folder=self.folder,
        )


def load_join(path: Path) -> JoinRecipe:
    """The wish in a TOML file. Paths are taken from the file's folder.

    Raises:
        OperatorError: it cannot be read, is not TOML, or names what does not exist.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OperatorError(f"{path} is not a text file") from None
    except tomllib.TOMLDecodeError as error:
        raise OperatorError(f"{path} is not TOML: {error}") from None
    return join_from(table, folder=path.parent, what=str(path))


def join_from(table: Mapping[str, object], *, folder: Path, what: str = "graph") -> JoinRecipe:
    """The wish in a table with the words of the specification; see `load_join`."""
    if "folder" in table:
        raise OperatorError(f"{what}: unknown field 'folder'")
    try:
        value = plain_json(table, what)
        nodes = value.get("nodes", [])
        if not isinstance(nodes, list):
            raise Malformed(f"{what}.nodes: expected [[nodes]] tables")
        value["nodes"] = [_node(one, f"{what}.nodes[{i}]") for i, one in enumerate(nodes)]
        value["folder"] = str(folder)
        found = codec.decode(JoinRecipe, value, what=what)
        found.as_recipe()  # which holds the sections that both have within their bounds
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None
    return found


def measured(wish: JoinRecipe, measure: Measure) -> JoinRecipe:
    """The wish, measured in another way.

    Raises:
        OperatorError: the two do not go together.
    """
    try:
        found = replace(wish, measure=measure)
        found.as_recipe()
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None
    return found


def render_join(wish: JoinRecipe) -> bytes:
    """A wish that no file holds, as JSON: what the provenance has the digest of."""
    value = codec.encode(wish)
    assert isinstance(value, dict)
    told = {name: one for name, one in value.items() if name != "folder"}
    return json.dumps(told, sort_keys=True).encode()


def _node(table: Json, at: str) -> dict[str, Json]:
    if not isinstance(table, dict):
        raise Malformed(f"{at}: expected a table")
    if ("model" in table) == ("step" in table):
        raise Malformed(f"{at}: a node is either a model or a step")
    if "model" in table:
        return dict(table)
    step = step_table(table, at)
    return {"step": step, **{name: step[name] for name in _NODE if name in step}}
