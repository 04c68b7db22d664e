"""The route table as an OpenAPI 3.1 document, so that it cannot say what is not so. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from edgefleet_agent.runtime.frames import Ask
from edgefleet_agent.serving.door import Door, Inference, Measure
from edgefleet_contract import __version__

_ANY: Final[dict[str, Any]] = {}
_LIST: Final = {"type": "array", "items": _ANY}
_SIGNED: Final = {"signature_name": {"const": "serving_default"}}
_EXAMPLES: Final = {
    "type": "object",
    "required": ["examples"],
    "properties": {
        "examples": {"type": "array", "items": {"type": "object"}},
        "context": {"type": "object"},
        **_SIGNED,
    },
}
_TENSOR: Final = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": _LIST,
    },
}
_OUTPUT: Final = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
}
_BODIES: Final[dict[Ask, Any]] = {
    Ask.PREDICT_V1: {
        "type": "object",
        "properties": {"instances": _LIST, "inputs": _ANY, **_SIGNED},
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    Ask.CLASSIFY_V1: _EXAMPLES,
    Ask.REGRESS_V1: _EXAMPLES,
    Ask.INFER_V2: {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": _TENSOR},
            "outputs": {"type": "array", "items": _OUTPUT},
        },
    },
}
_ERRORS: Final = {
    "400": "The body is not what the model takes",
    "401": "On the network: no token, or none that is known and has not ended",
    "403": "On the network: not for this model, or for this certificate",
    "404": "No such model, version or label",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "The body is compressed",
    "429": "On the network: too many wrong tokens came from this address",
    "500": "The model failed",
    "503": "The queue is full or no worker is there; Retry-After says when to try again",
    "504": "The model did not answer in time",
}
_NOT_MEASURED: Final = {
    "400": "The body is no job",
    "403": "Not a token for measuring, or not signed as it must be",
    "413": "The job is too large",
    "503": "Another job is measured, or an install is under way",
    "507": "There is no room for the job",
}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


def document(doors: Iterable[Door]) -> dict[str, Any]:
    """The document of a route table."""
    paths: dict[str, dict[str, Any]] = {}
    for door in doors:
        paths.setdefault(door.path, {})[door.method.lower()] = _operation(door)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgefleet device", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],  # none is needed on the device itself
    }


def _operation(door: Door) -> dict[str, Any]:
    places = re.findall(r"\{(\w+)\}", door.path)
    operation: dict[str, Any] = {
        "summary": door.about,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in places
        ],
        "responses": {"200": {"description": "The answer"}},
    }
    if isinstance(door.to, Inference):
        operation["requestBody"] = {"required": True, "content": _content(door.to.ask)}
        errors = _ERRORS
    elif isinstance(door.to, Measure):
        if door.to.takes_job:
            operation["requestBody"] = {"required": True, "content": {"application/x-tar": {}}}
        errors = {"401": _ERRORS["401"], "408": _ERRORS["408"], **_NOT_MEASURED}
    else:
        errors = {code: _ERRORS[code] for code in (("404",) if places else ())}
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for code, about in errors.items():
        operation["responses"][code] = {"description": about, "content": schema}
    return operation


def _content(ask: Ask) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _BODIES[ask]}}
    if ask is Ask.INFER_V2:
        content["application/octet-stream"] = {}
    return content
