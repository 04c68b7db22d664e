"""What is wished of a build: the recipe, read from TOML and checked before any work begins.

Unknown keys are refused with the keys that exist. Paths are taken from the recipe's own folder. The
format is docs/spec/recipe.md. This module reads one text file; it opens no data and no model.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path

from edgefleet_contract import codec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_converter.boards.places import parse_place
from edgefleet_converter.card import Card, card_checks
from edgefleet_converter.hardware import Hardware
from edgefleet_converter.readers.wish import Audio, Images, Table, wish_checks
from edgefleet_converter.recipe_drift import Drift, drift_checks
from edgefleet_converter.recipe_golden import Golden, golden_checks
from edgefleet_converter.recipe_optimize import Optimize, optimize_checks
from edgefleet_converter.recipe_prune import Prune
from edgefleet_converter.recipe_report import ReportWish
from edgefleet_converter.recipe_steps import AskedStep, step_table
from edgefleet_converter.search.wishes import Search, search_checks
from edgefleet_converter.targets import Target


@dataclass(frozen=True, slots=True)
class Source:
    """`trusted_types`: classes in a skops file that may be loaded beside scikit-learn's own."""

    trusted_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Data:
    """Where examples are: files, folders, or `module:function`. `labels` has a class name a line.

    They are what clients send. `calibration` may be absent where no target takes ranges from it.
    The others say how data that is no array is to be read.
    """

    held_out: str
    calibration: str = ""
    labels: str | None = None
    images: Images = field(default_factory=Images)
    audio: Audio = field(default_factory=Audio)
    table: Table = field(default_factory=Table)


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a float copy may stray from its source: `max_abs_err`, relative to outputs over 1."""

    max_abs_err: float = 1e-4


@dataclass(frozen=True, slots=True)
class Budget:
    """What quantizing may cost: accuracy as a share (0.02: two points); its least SQNR in dB."""

    max_accuracy_drop: float = 0.02
    min_sqnr_db: float = 10.0


@dataclass(frozen=True, slots=True)
class Measure:
    """Whether speed and memory are measured, over how many runs, and where: on `devices`, in
    `repeat` rounds, each model within `timeout_s`; without devices, on this machine.

    `token_file` opens the doors of boards whose agents run, `ca` (PEM) vouches for them.
    """

    enabled: bool = True
    runs: int = 200
    devices: tuple[str, ...] = ()
    repeat: int = 1
    timeout_s: int = 120
    token_file: str = ""
    ca: str = ""

    def __post_init__(self) -> None:
        for text in self.devices:
            parse_place(text)


@dataclass(frozen=True, slots=True)
class Headroom:
    """What the signed envelope allows over what was measured: factors, floors in ms, MiB."""

    p95_factor: float = 20.0
    p95_floor_ms: int = 100
    load_factor: float = 10.0
    load_floor_ms: int = 5000
    ram_extra_mib: int = 256


@dataclass(frozen=True, slots=True)
class Worker:
    """What each conversion process may use: seconds, and MiB of address space."""

    timeout_s: int = 300
    memory_mib: int = 6144


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a build is told beside the model, its name, its version and the key.

    `before` and `after` are steps around the model; `outputs` are what clients get, where that is
    not what the last of them gives. `state` pairs an input of the model with the output that goes
    in next; with `hidden_state` the model keeps such tensors by itself.
    """

    data: Data
    targets: tuple[Target, ...] = (Target.ONNX_INT8, Target.TFLITE_INT8)
    source: Source = field(default_factory=Source)
    parity: Parity = field(default_factory=Parity)
    budget: Budget = field(default_factory=Budget)
    search: Search = field(default_factory=Search)
    golden: Golden = field(default_factory=Golden)
    measure: Measure = field(default_factory=Measure)
    limits: Headroom = field(default_factory=Headroom)
    worker: Worker = field(default_factory=Worker)
    card: Card = field(default_factory=Card)
    prune: Prune = field(default_factory=Prune)
    report: ReportWish = field(default_factory=ReportWish)
    hardware: Hardware = field(default_factory=Hardware)
    drift: Drift = field(default_factory=Drift)
    optimize: Optimize = field(default_factory=Optimize)
    before: tuple[AskedStep, ...] = ()
    after: tuple[AskedStep, ...] = ()
    outputs: tuple[str, ...] = ()
    state: dict[str, str] = field(default_factory=dict)
    hidden_state: bool = False
    folder: str = field(default=".", metadata={"is_inner": True})

    def __post_init__(self) -> None:
        for says, holds in _checks(self):
            if not holds:
                raise Malformed(says)

    @property
    def is_stateful(self) -> bool:
        """Whether an answer depends on what was asked before."""
        return bool(self.state) or self.hidden_state

    def path(self, name: str) -> Path:
        """A path of the recipe, taken from its folder."""
        return Path(self.folder) / name


def _checks(recipe: Recipe) -> tuple[tuple[str, bool], ...]:
    limits = recipe.limits
    lost = recipe.hardware.without_variant(recipe.targets)
    return (
        ("targets: names none", bool(recipe.targets)),
        ("targets: names one twice", len(set(recipe.targets)) == len(recipe.targets)),
        (
            "field 'data.calibration' is missing, and an int8 target needs it",
            bool(recipe.data.calibration)
            or not any(one.needs_calibration for one in recipe.targets),
        ),
        (
            "state: only targets that are as they came in keep it (onnx-as-is, tflite-as-is)",
            not recipe.is_stateful or all(one.is_as_is for one in recipe.targets),
        ),
        (
            "prune: a target that is as it came in is not pruned",
            not recipe.prune.has_threshold or not any(one.is_as_is for one in recipe.targets),
        ),
        (
            "report.lambda_sweep: needs calibration data and a [prune] to compare with",
            not recipe.report.lambda_sweep
            or (recipe.prune.has_threshold and bool(recipe.data.calibration)),
        ),
        (
            f"hardware.classes: {lost} has no runtime for any of the targets",
            not lost,
        ),
        *golden_checks(recipe.golden),
        ("measure.runs: 10 to 100000", 10 <= recipe.measure.runs <= 100_000),
        ("measure.repeat: 1 to 20", 1 <= recipe.measure.repeat <= 20),
        ("measure.timeout_s: 1 to 3600", 1 <= recipe.measure.timeout_s <= 3600),
        (
            "measure.devices: needs measure.enabled",
            recipe.measure.enabled or not recipe.measure.devices,
        ),
        (
            "measure.devices: names one twice",
            len(set(recipe.measure.devices)) == len(recipe.measure.devices),
        ),
        ("parity.max_abs_err: above 0", recipe.parity.max_abs_err > 0),
        ("budget.max_accuracy_drop: 0 to 1", 0 <= recipe.budget.max_accuracy_drop <= 1),
        ("limits: factors are 1 or more", min(limits.p95_factor, limits.load_factor) >= 1),
        (
            "limits: floors are 0 or more",
            min(limits.p95_floor_ms, limits.load_floor_ms, limits.ram_extra_mib) >= 0,
        ),
        ("worker.timeout_s: 1 or more", recipe.worker.timeout_s >= 1),
        ("worker.memory_mib: 256 or more", recipe.worker.memory_mib >= 256),
        *wish_checks(recipe.data.images, recipe.data.audio, recipe.data.table),
        *card_checks(recipe.card),
        *drift_checks(recipe.drift),
        *optimize_checks(recipe.optimize, recipe.targets, recipe.hardware),
        *search_checks(recipe.search, can_measure=recipe.measure.enabled),
    )


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, with `section.key=value` texts laid over it.

    A value of an override is TOML; what is not TOML is taken as a string. A path in an override is
    taken from the working directory, a path in the file from the file's folder.

    Raises:
        OperatorError: the file cannot be read or is not TOML, a key is unknown or missing, a value
            is out of range, or an override is not `key=value`.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise OperatorError(f"cannot read the recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OperatorError(f"the recipe {path} is not a text file") from None
    return parse_recipe(text, folder=path.parent, overrides=overrides, what=str(path))


def parse_recipe(
    text: str, *, folder: Path, overrides: Sequence[str] = (), what: str = "recipe"
) -> Recipe:
    """The recipe in a TOML text; see `load_recipe`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OperatorError(f"{what} is not TOML: {error}") from None
    return recipe_from(table, folder=folder, overrides=overrides, what=what)


def recipe_from(
    table: Mapping[str, object],
    *,
    folder: Path,
    overrides: Sequence[str] = (),
    what: str = "recipe",
) -> Recipe:
    """The recipe in a table with the words of the specification; see `load_recipe`."""
    laid_over = copy.deepcopy(dict(table)) if overrides else dict(table)
    for override in overrides:
        _apply(laid_over, override)
    if "folder" in laid_over:
        raise OperatorError(f"{what}: unknown field 'folder'")
    try:
        value = {**plain_json(laid_over, what), "folder": str(folder)}
        for place in ("before", "after"):
            steps = value.get(place, [])
            if not isinstance(steps, list):
                raise Malformed(f"{what}.{place}: expected [[{place}]] tables")
            at = f"{what}.{place}"
            value[place] = [step_table(one, f"{at}[{i}]") for i, one in enumerate(steps)]
        return codec.decode(Recipe, value, what=what)
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None


def _apply(table: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise OperatorError(
            f"--set {override!r} is not of the form key=value", hint="--set budget.max_drop=0.01"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if parts[0] == "data" and len(parts) == 2 and isinstance(value, str):
        value = str(Path.cwd() / value)
    node = table
    for part in parts[:-1]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            raise OperatorError(f"--set {key}: {part} is not a section")
        node = inner
    node[parts[-1]] = value


def plain_json(table: Mapping[str, object], what: str) -> dict[str, Json]:
    """A table of TOML as JSON; dates are refused."""
    return {key: _value(item, f"{what}.{key}") for key, item in table.items()}


def _value(value: object, at: str) -> Json:
    if isinstance(value, dict):
        return plain_json(value, at)
    if isinstance(value, list | tuple):
        return [_value(item, at) for item in value]
    if isinstance(value, date | time):
        raise Malformed(f"{at}: expected a number, a string or a list, found a date")
    if isinstance(value, str | int | float | bool):
        return value
    raise Malformed(f"{at}: {type(value).__name__} has no place in a recipe")
