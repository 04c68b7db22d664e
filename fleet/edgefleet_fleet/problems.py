"""Every refusal of the API as `application/problem+json` (RFC 9457): the error tree as HTTP."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgefleet_contract.errors import (
    EdgefleetError,
    Malformed,
    OperatorError,
    PeerError,
    TransientError,
    Unverified,
)
from edgefleet_fleet.errors import Changed, Conflict, Denied, Mismatch, NotFound, TooMany, Unknown
from edgefleet_fleet.guards import Replayed

_STATUS: tuple[tuple[type[EdgefleetError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (Changed, HTTPStatus.PRECONDITION_FAILED),
    (Conflict, HTTPStatus.CONFLICT),
    (Mismatch, HTTPStatus(422)),
    (Unknown, HTTPStatus.UNAUTHORIZED),
    (Denied, HTTPStatus.FORBIDDEN),
    (Unverified, HTTPStatus(422)),
    (Malformed, HTTPStatus(422)),
    (OperatorError, HTTPStatus.BAD_REQUEST),
    (TooMany, HTTPStatus.TOO_MANY_REQUESTS),
    (TransientError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def install(app: FastAPI) -> None:
    """Let the application answer with problems."""
    app.add_exception_handler(EdgefleetError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(UnicodeEncodeError, _of_text)
    app.add_exception_handler(Replayed, _again)


def problem(status: HTTPStatus, detail: str, **more: Any) -> JSONResponse:
    """One problem."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    body |= {name: value for name, value in more.items() if value}
    response = JSONResponse(body, status.value, media_type="application/problem+json")
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _of_ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, EdgefleetError)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), HTTPStatus(500))
    reason = error.reason.value if isinstance(error, PeerError) else ""
    response = problem(status, error.message, hint=error.hint, reason=reason)
    if isinstance(error, TransientError) and error.retry_after_s:
        response.headers["Retry-After"] = f"{error.retry_after_s:.0f}"
    return response


async def _of_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(HTTPStatus(422), f"{where}: {first['msg']}")


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:  # no route has it
        detail = f"there is nothing at {request.url.path[:200]!r}"
    response = problem(HTTPStatus(error.status_code), detail)
    response.headers.update(error.headers or {})  # such as Allow
    return response


async def _again(_request: Request, found: Exception) -> Response:
    assert isinstance(found, Replayed)
    headers = {"Idempotency-Replayed": "true"}
    return Response(found.row.body, found.row.status or 200, headers, "application/json")


async def _of_text(_request: Request, error: Exception) -> Response:
    assert isinstance(error, UnicodeError)
    return problem(HTTPStatus(422), "a text has halves of characters (lone surrogates)")
