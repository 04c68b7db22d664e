"""The JSON Schema (draft 2020-12) of a recipe and of a join: for editors, which complete and check.

Made from the types that the parser decodes into, so that the two cannot differ in what a key is
called. The parser is the judge: some rules hold between keys, and there the schema says less.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from edgefleet_contract import codec
from edgefleet_contract.canonical import Json
from edgefleet_contract.drift_reference import FEWEST, MAX_BINS
from edgefleet_converter.join_recipe import AskedNode, JoinRecipe
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.recipe_steps import AskedStep
from edgefleet_converter.recipe_words import WORDS
from edgefleet_converter.targets import Target
from edgefleet_processing.step import File, Step
from edgefleet_processing.table import STEPS

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Json]

_TEXTS: Final[Schema] = {"type": "array", "items": {"type": "string"}}
_SHARE: Final[Schema] = {"minimum": 0, "maximum": 1}
_RULES: Final[Mapping[str, Schema]] = {
    "targets": {"minItems": 1, "uniqueItems": True},
    "formats": {"minItems": 1, "uniqueItems": True},
    "golden.vectors": {"minimum": 1, "maximum": 256},
    "measure.runs": {"minimum": 10, "maximum": 100_000},
    "measure.repeat": {"minimum": 1, "maximum": 20},
    "measure.timeout_s": {"minimum": 1, "maximum": 3600},
    "parity.max_abs_err": {"exclusiveMinimum": 0},
    "budget.max_accuracy_drop": _SHARE,
    "budget.min_accuracy": _SHARE,
    "prune.max_accuracy_drop": _SHARE,
    "prune.structured.max_accuracy_drop": _SHARE,
    "limits.p95_factor": {"minimum": 1},
    "limits.load_factor": {"minimum": 1},
    "limits.p95_floor_ms": {"minimum": 0},
    "limits.load_floor_ms": {"minimum": 0},
    "limits.ram_extra_mib": {"minimum": 0},
    "drift.bins": {"minimum": 2, "maximum": MAX_BINS - 1},
    "drift.least_examples": {"minimum": FEWEST},
    "optimize.offline": {"enum": ["", "arm64", "armhf", "x86-64"]},
    "worker.timeout_s": {"minimum": 1},
    "report.time_limit_s": {"minimum": 1},
    "worker.memory_mib": {"minimum": 256},
}


def recipe_schema() -> Schema:
    """The schema of what `build` reads."""
    static: list[Json] = [target.value for target in Target if target.needs_calibration]
    is_static: Schema = {"properties": {"targets": {"contains": {"enum": static}}}}
    return {
        "$schema": DRAFT,
        "title": "edgefleet recipe",
        **_object(Recipe, ""),
        "if": is_static,
        "then": {"properties": {"data": {"required": ["calibration"]}}},
    }


def join_schema() -> Schema:
    """The schema of what `join` reads."""
    return {"$schema": DRAFT, "title": "edgefleet join", **_object(JoinRecipe, "")}


def _object(kind: type, at: str) -> Schema:
    hints = typing.get_type_hints(kind)
    properties: Schema = {}
    required: list[Json] = []
    for field in dataclasses.fields(kind):
        if not at and field.name == "folder":
            continue  # the place of the file; not a key
        key = field.name.rstrip("_")  # `lambda` is no name in Python
        properties[key] = _field(field, hints[field.name], f"{at}.{key}" if at else key)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(key)
    told: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**told, "required": required} if required else told


def _field(field: dataclasses.Field[object], kind: object, at: str) -> Schema:
    schema = {**_kind(kind, at), **_RULES.get(at, {})}
    if at in WORDS:
        schema["description"] = WORDS[at]
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        schema["description"] = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    if field.default not in (dataclasses.MISSING, None, "") and field.default != ():
        schema["default"] = codec.encode(field.default)
    return schema


def _kind(kind: object, at: str) -> Schema:
    """The schema of a type that the codec decodes."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(kind) if arg is not type(None))
        return _kind(inner, at)
    if origin is tuple:
        return {"type": "array", "items": _kind(typing.get_args(kind)[0], at)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _kind(typing.get_args(kind)[1], at)}
    if kind is AskedStep:
        return {"oneOf": [_step(name, step) for name, step in sorted(STEPS.items())]}
    if kind is AskedNode:
        return {"oneOf": _nodes()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _object(kind, at)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"enum": [word.value for word in kind]}
    words: dict[object, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": words[kind]}


def _nodes() -> list[Json]:
    wanted: list[Json] = ["inputs", "outputs"]
    model: Schema = {
        "type": "object",
        "properties": {"model": {"type": "string"}, "inputs": _TEXTS, "outputs": _TEXTS},
        "additionalProperties": False,
        "required": ["model", *wanted],
    }
    steps: list[Json] = []
    for name, step in sorted(STEPS.items()):
        told = _step(name, step)
        required = told["required"]
        assert isinstance(required, list)
        steps.append({**told, "required": [*required, *wanted]})
    return [model, *steps]


def _step(name: str, step: Step) -> Schema:
    """A table of a step: its name, tensors and file, and its settings beside them."""
    settings = _object(step.settings, name)
    own, required = settings["properties"], settings.get("required", [])
    assert isinstance(own, dict)
    assert isinstance(required, list)
    properties: Schema = {"step": {"const": name}, "inputs": _TEXTS, "outputs": _TEXTS}
    wanted: list[Json] = ["step", *required]
    if step.file is not File.NO:
        properties["file"] = {"type": "string"}
    if step.file is File.MUST and not AskedStep(name).takes_labels:
        wanted.append("file")
    return {
        "type": "object",
        "description": inspect.cleandoc(step.settings.__doc__ or ""),
        "properties": {**properties, **{key: _number_too(told) for key, told in own.items()}},
        "additionalProperties": False,
        "required": wanted,
    }


def _number_too(told: Json) -> Json:
    """A setting that is text may be a number in TOML; it is written as text then [recipe-7.2]."""
    if not isinstance(told, dict):
        return told
    if told.get("type") == "string":
        return {**told, "type": ["string", "number"]}
    if told.get("type") == "array":
        return {**told, "items": _number_too(told["items"])}
    return told
