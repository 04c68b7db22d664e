"""Routes: bundles and the blobs that they are made of."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from edgefleet_contract.errors import Malformed
from edgefleet_fleet import registry, shapes_models, views
from edgefleet_fleet.api_common import Publisher, Reader, Route, Since, TheServices
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.paging import cut
from edgefleet_fleet.shapes import said

router = APIRouter(prefix="/api/v1", tags=["bundles"], route_class=Route)


class BundleBody(BaseModel):
    """`bundle.json` and `model.sig`, base64; `check` false takes one that nobody vouches for."""

    manifest: str = Field(max_length=400_000)
    signature: str = Field(max_length=1_500_000)
    check: bool = True


class CompleteBody(BaseModel):
    """Under which signature the bundle was announced."""

    signature_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@router.post("/bundles", status_code=201, responses=said(shapes_models.ReceivedBundle, 201))
def receive_bundle(body: BundleBody, services: TheServices, actor: Publisher) -> Any:
    """Announce a bundle; the answer names the blobs that the shelf lacks."""
    received = services.library.receive(
        _unbase64(body.manifest), _unbase64(body.signature), check=body.check, actor=actor
    )
    missing = [
        {"path": file.path, "sha256": file.sha256, "size": file.size} for file in received.missing
    ]
    return views.bundle(received.bundle) | {"missing": missing}


@router.put(
    "/blobs/{sha256}",
    responses=said(shapes_models.Blob),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def put_blob(
    sha256: str,
    request: Request,
    services: TheServices,
    _actor: Publisher,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Any:
    """Upload a blob that an announced bundle names, or the rest of one that broke off."""
    source = _Upload(request.stream(), asyncio.get_running_loop())
    size = await services.room.threads.upload(services.uploads.put, sha256, source, offset=offset)
    return {"sha256": sha256, "size": size}


@router.get("/blobs/{sha256}/upload", responses=said(shapes_models.Upload))
def show_upload(sha256: str, services: TheServices, _actor: Publisher) -> Any:
    """How many bytes of a blob are there: where its upload goes on."""
    return {"sha256": sha256, "offset": services.uploads.offset(sha256)}


@router.post("/bundles/{digest}/complete", responses=said(shapes_models.Bundle))
def complete_bundle(
    digest: str, body: CompleteBody, services: TheServices, actor: Publisher
) -> Any:
    """Say that every blob is there; from now on the bundle can be rolled out."""
    bundle = services.library.complete(digest, body.signature_sha256, actor=actor)
    return views.bundle(bundle)


@router.get("/bundles", responses=said(shapes_models.Bundles))
def list_bundles(
    services: TheServices, _actor: Reader, pages: ThePages, model: str = "", since: Since = 0
) -> Any:
    """All bundles, newest first; of one model, or since a time."""
    after = pages.after("bundles", int, int, str, str)
    with services.room.store.begin() as tx:
        known = tx.bundles.list()
    page = cut(
        [b for b in known if model in ("", b.model) and b.created_at >= since],
        lambda b: (b.created_at, b.version, b.digest, b.signature_sha256),
        limit=pages.limit,
        after=after,
        newest_first=True,
    )
    return pages.answer("bundles", page, [views.bundle(found) for found in page.rows])


@router.get("/bundles/{digest}", responses=said(shapes_models.BundleDetail))
def show_bundle(digest: str, services: TheServices, _actor: Reader) -> Any:
    """One bundle (by digest, the beginning of it, or `model-version`) with files and report."""
    with services.room.store.begin() as tx:
        return views.bundle_detail(tx, services.room.shelf, digest)


@router.delete("/bundles/{digest}", status_code=204)
def remove_bundle(digest: str, services: TheServices, actor: Publisher) -> Response:
    """Take a bundle away that nothing refers to."""
    services.library.remove(digest, actor=actor)
    return Response(status_code=204)


@router.get("/models", responses=said(shapes_models.Models))
def list_models(services: TheServices, _actor: Reader, pages: ThePages) -> Any:
    """The models: their versions, and how many devices run them."""
    after = pages.after("models", str)
    with services.room.store.begin() as tx:
        known = registry.models(tx)
    page = cut(known, lambda view: (view["model"],), limit=pages.limit, after=after)
    return pages.answer("models", page, page.rows)


@router.get("/models/{model}", responses=said(shapes_models.Model))
def show_model(model: str, services: TheServices, _actor: Reader) -> Any:
    """One model: every version, its variants, who signed it, and where it is."""
    with services.room.store.begin() as tx:
        return registry.model(tx, services.publications, services.room.shelf, model)


class _Upload:
    """A request's body as a file that a worker thread reads."""

    def __init__(self, stream: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._loop = loop

    def read(self, _size: int, /) -> bytes:
        return asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()

    async def _next(self) -> bytes:
        async for piece in self._stream:
            if piece:
                return piece
        return b""


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise Malformed("manifest or signature: not base64") from None
