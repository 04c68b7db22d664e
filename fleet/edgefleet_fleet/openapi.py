"""The OpenAPI document: what all routes have in common is said here, once.

Routes declare their answers (`responses=said(...)`) and nothing of refusals: which there can be
follows from what a route is. A test runs schemathesis against the service with this document.
"""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from edgefleet_fleet.api_common import KEYED, OPEN
from edgefleet_fleet.api_resources import RESOURCES
from edgefleet_fleet.services import Services
from edgefleet_fleet.shapes import Problem

_UNSAFE: Final = frozenset({"post", "put", "delete"})
_TAGS: Final = {
    "devices": "Devices, how they come in, and what they said.",
    "groups": "Filters with a name, and whom a filter means.",
    "commands": "Asking devices to do something once.",
    "bundles": "Models, bundles, and the blobs that they are made of.",
    "rollouts": "Who gets which model, when, and when to stop.",
    "trust": "What publishers and root holders say; the TUF repository.",
    "users": "Who may ask.",
    "keys": "The audit trail.",
    "stream": "The stream of changes.",
    "webhooks": "Who is told.",
    "public": "Blobs, health and metrics.",
}
_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "RolloutBody": {
        "bundle": "9f" * 32,
        "signature_sha256": "3c" * 32,
        "to": "group:hall3",
        "canaries": ["pi-1"],
        "waves": [5, 25, 100],
        "max_failures": 2,
    },
    "ClaimBody": {"uses": 20, "hours": 24},
    "CommandBody": {"kind": "ping", "to": "online=true"},
    "GroupBody": {"filter": "tag.site=hall3 and hardware_class=rpi4", "about": "the third hall"},
    "TagsBody": {"tags": {"site": "hall3"}, "remove": ["spare"]},
    "UserBody": {"name": "ci", "role": "publisher", "days": 365},
    "WebhookBody": {"name": "chat", "url": "https://example.org/hook", "events": ["rollout.*"]},
}
_REFUSALS: Final = {
    400: "A person must mend it.",
    401: "No valid token.",
    403: "Not with this role or claim.",
    404: "Not known.",
    409: "It contradicts what is there, or is on its way.",
    412: "It was changed since it was read (`If-Match`).",
    413: "The body is too large.",
    422: "Not acceptable; `reason` says why where there is a word for it.",
    429: "Too many wrong tokens, or calls.",
    503: "Try again.",
}
_PARAMETERS: Final = {
    "IfMatch": ("If-Match", "The `ETag` of the resource: 412 where it is another now."),
    "IfNoneMatch": ("If-None-Match", "An `ETag`: 304 where it is still that."),
    "IdempotencyKey": (
        "Idempotency-Key",
        "A text of your choice for this request: sent again in 24 hours, it is answered the same.",
    ),
}


def install(app: FastAPI, services: Services) -> None:
    """Let the application serve the document; it is made when it is first asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, cookie=services.access.cookie_name)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # as FastAPI's manual has it


def operation_id(route: APIRoute) -> str:
    """What a route is called: its function, and its noun where that does not say it."""
    if route.path.startswith("/api/v1/rollouts") and "rollout" not in route.name:
        return f"{route.name}_rollout"
    return route.name


def _document(app: FastAPI, *, cookie: str) -> dict[str, Any]:
    found = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    parts = found.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = Problem.model_json_schema()
    for name, example in _EXAMPLES.items():
        schemas[name]["examples"] = [example]
    parts["responses"] = {str(status): _refusal(status, text) for status, text in _REFUSALS.items()}
    parts["parameters"] = {
        name: {"name": header, "in": "header", "description": text, "schema": {"type": "string"}}
        for name, (header, text) in _PARAMETERS.items()
    }
    parts["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "page": {"type": "apiKey", "in": "cookie", "name": cookie},
    }
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            _complete(path, method, operation)
    return found


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    is_guarded = path.startswith("/api/v1/") and path not in OPEN
    operation["security"] = [{"token": []}, {"page": []}] if is_guarded else []
    for status in _refusals(path, method, operation, is_guarded=is_guarded):
        if str(status) not in answers or status == HTTPStatus(422):
            answers[str(status)] = {"$ref": f"#/components/responses/{status}"}
    if not is_guarded:
        return
    for name in _parameters(path, method):
        operation.setdefault("parameters", []).append({"$ref": f"#/components/parameters/{name}"})
    for status, answer in answers.items():
        if status.startswith("2"):
            answer["headers"] = _headers(answer, method)
    if method == "get" and "application/json" in answers["200"].get("content", {}):
        answers["304"] = {"description": "It is still what `If-None-Match` says."}


def _refusals(path: str, method: str, operation: dict[str, Any], *, is_guarded: bool) -> list[int]:
    found = {503}
    if path.startswith("/api/v1/"):
        found.add(429)
    if is_guarded:
        found |= {401, 403}
    if "parameters" in operation or "requestBody" in operation:
        found |= {404, 422}
    if method in _UNSAFE:
        found |= {400, 403, 404, 409, 413, 422}
    if method in _UNSAFE and is_guarded:
        found.add(412)
    if path.startswith("/blobs/"):
        found |= {401, 403, 429}
    if path.startswith("/api/v1/trust"):
        found |= {400, 404, 409}
    if path.startswith("/api/v1/fleets"):
        found.add(404)  # only a site has fleets
    if path == "/api/v1/login":
        found.add(401)
    return sorted(found)


def _parameters(path: str, method: str) -> list[str]:
    if method == "get":
        return ["IfNoneMatch"] if path != "/api/v1/events" else []
    if method == "post" and path in KEYED:
        return ["IdempotencyKey"]
    about = any(path == known or path.startswith(f"{known}/") for known in RESOURCES)
    return ["IfMatch"] if about else []


def _headers(answer: dict[str, Any], method: str) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    found = {"RateLimit": text, "RateLimit-Policy": text}
    if method == "get" and "application/json" in answer.get("content", {}):
        found["ETag"] = text
    return copy.deepcopy(found)


def _refusal(status: int, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": text,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    if status in (429, 503):
        found["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return found
