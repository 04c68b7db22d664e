"""Routes: the TUF repository (open, devices read it) and what publishers and root holders send."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from edgefleet_contract.errors import Malformed
from edgefleet_fleet import shapes_models, views
from edgefleet_fleet.api_common import Admin, Publisher, Reader, Route, TheServices
from edgefleet_fleet.publications import NEWEST_ROOT
from edgefleet_fleet.shapes import said

router = APIRouter(tags=["trust"], route_class=Route)


class TargetsBody(BaseModel):
    """New targets, signed by a publisher, and the policies that changed; base64."""

    targets: str = Field(max_length=3_000_000)
    files: dict[str, str] = {}


class BeginBody(TargetsBody):
    """The outcome of a root ceremony."""

    root: str = Field(max_length=200_000)


class RootBody(BaseModel):
    """The next root; base64."""

    root: str = Field(max_length=200_000)


@router.get(
    "/tuf/{name:path}",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
def show_document(name: str, services: TheServices) -> Response:
    """A TUF document. Old versions never change; what is newest is asked for anew each time."""
    raw = services.publications.read(name)
    kept = (
        "no-cache"
        if name in ("timestamp.json", NEWEST_ROOT)
        else "public, max-age=31536000, immutable"
    )
    return Response(raw, media_type="application/json", headers={"Cache-Control": kept})


@router.get("/api/v1/trust", responses=said(shapes_models.Trust))
def show_trust(services: TheServices, _actor: Reader) -> Any:
    """Who may sign what, what is released, and until when that holds."""
    with services.room.store.begin() as tx:
        return views.trust(services.publications, tx)


@router.get("/api/v1/trust/identity", responses=said(shapes_models.TrustIdentity))
def show_identity(services: TheServices, _actor: Reader) -> Any:
    """What a root ceremony must know of this control room: its public keys."""
    room = services.room
    with room.store.begin() as tx:
        has_root = services.publications.current(tx) is not None
    return {
        "fleet": room.fleet,
        "ca": room.authority.pem,
        "director": room.director.public.pem,
        "repository": services.publications.repository.pem,
        "has_root": has_root,
    }


@router.post("/api/v1/trust", status_code=201, responses=said(shapes_models.Trust, 201))
def begin_trust(body: BeginBody, services: TheServices, actor: Admin) -> Any:
    """Take the outcome of a root ceremony: once in a fleet's life."""
    services.publications.begin(
        _unbase64(body.root), _unbase64(body.targets), _files(body.files), actor=actor
    )
    return show_trust(services, actor)


@router.post("/api/v1/trust/targets", responses=said(shapes_models.Trust))
def publish_targets(body: TargetsBody, services: TheServices, actor: Publisher) -> Any:
    """Take new targets: releases, revocations, policies."""
    services.publications.publish(_unbase64(body.targets), _files(body.files), actor=actor)
    services.deployments.upkeep.follow_policy()
    return show_trust(services, actor)


@router.post("/api/v1/trust/root", responses=said(shapes_models.Trust))
def replace_root(body: RootBody, services: TheServices, actor: Admin) -> Any:
    """Take the next root: keys rotated, publishers added or revoked."""
    services.publications.replace_root(_unbase64(body.root), actor=actor)
    return show_trust(services, actor)


@router.post("/api/v1/trust/director", status_code=201, responses=said(shapes_models.NextKey, 201))
def make_director(services: TheServices, actor: Admin) -> Any:
    """Make the next director key; it signs orders once a publisher lists it."""
    key = services.deployments.upkeep.prepare_director(actor=actor)
    return {"key_id": key.id, "pem": key.pem}


@router.post(
    "/api/v1/trust/repository", status_code=201, responses=said(shapes_models.NextKey, 201)
)
def make_repository(services: TheServices, actor: Admin) -> Any:
    """Make the next repository key; it keeps the metadata fresh once a root names it."""
    key = services.publications.prepare_repository(actor=actor)
    return {"key_id": key.id, "pem": key.pem}


def _files(found: dict[str, str]) -> dict[str, bytes]:
    return {path: _unbase64(text) for path, text in found.items()}


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise Malformed("not base64") from None
