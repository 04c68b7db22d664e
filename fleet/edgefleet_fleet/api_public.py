"""Routes without a permission: blobs by digest and deltas (devices ask for them), health, metrics.

Over TLS a blob is for devices in service, by their certificates, and for users. Without it a
blob's digest is the right to read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from edgefleet_contract import __version__
from edgefleet_contract.bundle import Digest, is_digest
from edgefleet_contract.errors import TransientError
from edgefleet_fleet import metrics
from edgefleet_fleet.api_common import Route, TheServices
from edgefleet_fleet.deltas import SOON_S
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.shapes import said
from edgefleet_fleet.shapes_models import Health
from edgefleet_fleet.threads import MINE

router = APIRouter(tags=["public"], route_class=Route)
_PIECE: Final = 256 * 1024
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_CONTENT: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": _CONTENT},
    206: {"content": _CONTENT, "description": "One range."},
    304: {"description": "As the client has it."},
    416: {"description": "The range lies outside."},
}


@router.head("/blobs/{sha256}", include_in_schema=False)
@router.get("/blobs/{sha256}", response_class=Response, responses=_BYTES)
def read_blob(sha256: str, request: Request, services: TheServices) -> Response:
    """The bytes of a blob, whole or one range of them (RFC 9110, section 14).

    Files of bundles that no rollout hands out in the clear are not here [fleet-api-4.5].
    """
    _check_reader(request, services)
    size = services.library.size(Digest(sha256)) if is_digest(sha256) else None
    if size is None:
        raise NotFound(f"blob {sha256[:16]!r} is not on the shelf")
    digest = Digest(sha256)
    read = partial(services.library.read, digest)
    return _give(request, size, sha256, _kept(services, "max-age=31536000, immutable"), read)


@router.get("/blobs/{sha256}/delta/{old}", response_class=Response, responses=_BYTES)
def read_delta(sha256: str, old: str, request: Request, services: TheServices) -> Response:
    """What makes a blob from another one (docs/spec/bundle.md, section 8).

    It says as much as the blob does, and is had on the same terms. While it is being made: 503.
    """
    _check_reader(request, services)
    pair = Digest(old), Digest(sha256)
    known = is_digest(sha256) and is_digest(old) and services.library.size(Digest(sha256))
    path = services.deltas.find(*pair) if known else None
    if path is None and services.deltas.is_coming(*pair):
        raise TransientError("the delta is being made", retry_after_s=SOON_S)
    if path is None:
        raise NotFound(f"there is no delta from {old[:16]!r} to {sha256[:16]!r}")
    size = path.stat().st_size

    def read(*, start: int, length: int) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(start)
            while length and (piece := file.read(min(length, _PIECE))):
                length -= len(piece)
                yield piece

    return _give(request, size, f"{sha256}-{old}-{size}", _kept(services, "max-age=3600"), read)


def _check_reader(request: Request, services: TheServices) -> None:
    if services.room.config.is_tls:
        services.access.reader(request)


def _kept(services: TheServices, how: str) -> str:
    """`Cache-Control`: over TLS, a shared cache would give to those who may not have it."""
    return f"{'private' if services.room.config.is_tls else 'public'}, {how}"


def _give(
    request: Request, size: int, tag: str, keep: str, read: Callable[..., Iterator[bytes]]
) -> Response:
    """Bytes that `read` gives from a start on, whole or one range of them."""
    headers = {"ETag": f'"{tag}"', "Accept-Ranges": "bytes", "Cache-Control": keep}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    found = _parse_range(request.headers.get("range", ""), size)
    if found is None:
        headers["Content-Range"] = f"bytes */{size}"
        return Response(status_code=416, headers=headers)
    start, length = found
    status = 200
    if "range" in request.headers and (start, length) != (0, size):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    headers["Content-Length"] = str(length)
    kind = "application/octet-stream"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    pieces = MINE.get().each(read(start=start, length=length))
    return StreamingResponse(pieces, status, headers, kind)


@router.get("/healthz", responses=said(Health) | said(Health, 503))
def show_health(services: TheServices) -> JSONResponse:
    """Whether the data base answers and the broker is connected; 503 where not.

    A site says beside it in which state its other fleets are: their trouble is not its own.
    """
    with services.room.store.begin() as tx:
        tx.ledger.setting("fleet")
    link = services.room.link
    connected = link is not None and link.is_connected
    body: dict[str, object] = {
        "status": "ok" if connected else "degraded",
        "fleet": services.room.fleet,
        "version": __version__,
        "broker_connected": connected,
    }
    others = services.site.counts() if services.site is not None else {}
    if others:
        body["fleets"] = others
    return JSONResponse(body, 200 if connected else 503)


@router.get("/metrics", response_class=PlainTextResponse)
def show_metrics(services: TheServices) -> PlainTextResponse:
    """Counts and gauges in Prometheus' text format."""
    return PlainTextResponse(metrics.text(services), media_type=metrics.CONTENT_TYPE)


def _parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and length of what is asked for; None where it lies outside.

    A header that is not one range of bytes is ignored, as the RFC allows.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[0] == "bytes=-":
        return 0, size
    first, last = found[1], found[2]
    if not first:
        length = min(int(last), size)
        return (size - length, length) if length else None
    start = int(first)
    if last and int(last) < start:
        return 0, size
    if start >= size:
        return None
    end = min(int(last), size - 1) if last else size - 1
    return start, end - start + 1
