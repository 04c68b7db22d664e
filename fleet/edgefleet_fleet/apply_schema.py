"""The JSON Schema (draft 2020-12) of `fleet.yaml`, for editors. The parser is the judge."""

from __future__ import annotations

from typing import Any

from edgefleet_fleet.api_rollouts import RolloutBody
from edgefleet_fleet.apply_file import GIVEN, VERSION

_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}


def schema() -> dict[str, Any]:
    """The schema; what a rollout takes is what the API takes."""
    body = RolloutBody.model_json_schema(ref_template="#/$defs/{model}")
    words = {name: found for name, found in body["properties"].items() if name not in GIVEN}
    rollout = {
        "type": "object",
        "additionalProperties": False,
        "required": ["version"],
        "properties": {"version": {"type": "integer", "minimum": 1}, **words},
    }
    group = {
        "type": "object",
        "additionalProperties": False,
        "required": ["filter"],
        "properties": {"filter": {"type": "string"}, "about": {"type": "string"}},
    }
    webhook = {
        "type": "object",
        "additionalProperties": False,
        "required": ["url"],
        "properties": {
            "url": {"type": "string"},
            "events": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgefleet fleet.yaml",
        "type": "object",
        "additionalProperties": False,
        "required": ["version"],
        "properties": {
            "version": {"const": VERSION},
            "fleet": {"type": "string"},
            "groups": _each({"anyOf": [{"type": "string"}, group]}),
            "tags": _each(_TEXTS),
            "webhooks": _each(webhook),
            "models": _each(
                {
                    "anyOf": [
                        {"$ref": "#/$defs/rollout"},
                        {"type": "array", "items": {"$ref": "#/$defs/rollout"}},
                    ]
                }
            ),
        },
        "$defs": {**body.get("$defs", {}), "rollout": rollout},
    }


def _each(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": ["object", "null"], "additionalProperties": value}
