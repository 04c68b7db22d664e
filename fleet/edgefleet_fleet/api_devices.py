"""Routes: enrolment, claims, who waits for approval, devices, the audit trail."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from edgefleet_contract import codec
from edgefleet_contract.canonical import MAX_BYTES
from edgefleet_contract.errors import Malformed
from edgefleet_contract.messages import CertificateRequest, EnrolPending, EnrolRequest, parse
from edgefleet_fleet import device_views, views
from edgefleet_fleet.access import address_of
from edgefleet_fleet.admission import MAX_LISTED, Listed
from edgefleet_fleet.api_common import Admin, Operator, Reader, TheServices
from edgefleet_fleet.groups import MAX_TAGS, devices_of, meant
from edgefleet_fleet.quarantines import lift, quarantines

router = APIRouter(prefix="/api/v1")


class ListedBody(BaseModel):
    """A device that comes in at once; with a key id, under that key alone."""

    device: str
    key_id: str = ""


class ClaimBody(BaseModel):
    """How often a claim may be used, for how long, and how its holders come in."""

    uses: int | None = Field(None, ge=1, le=10_000)
    hours: float = Field(24, gt=0, le=24 * 366)
    approve: bool = False
    listed: list[ListedBody] = Field([], max_length=MAX_LISTED)


@router.post("/enrol", tags=["devices"])
async def enrol(request: Request, services: TheServices) -> Any:
    """Exchange a claim and a certificate request for a client certificate; 202: wait, ask again."""
    message = parse(EnrolRequest, await _body(request))
    address = request.client.host if request.client is not None else ""
    from starlette.concurrency import run_in_threadpool

    answer = await run_in_threadpool(services.enrolment.enrol, message, address=address)
    status = 202 if isinstance(answer, EnrolPending) else 200
    return JSONResponse(codec.encode(answer), status)


@router.post("/renew", tags=["devices"])
async def renew(request: Request, services: TheServices) -> Any:
    """The next certificate of a device whose last one ended; its key signed the request."""
    message = parse(CertificateRequest, await _body(request))
    from starlette.concurrency import run_in_threadpool

    certificates = services.enrolment.certificates
    return codec.encode(
        await run_in_threadpool(certificates.revive, message, address=address_of(request))
    )


async def _body(request: Request) -> bytes:
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > MAX_BYTES:
            raise Malformed("request: too large")
    return bytes(raw)


@router.post("/claims", status_code=201, tags=["devices"])
def make_claim(body: ClaimBody, services: TheServices, actor: Operator) -> Any:
    """Make a claim; the answer is the only place where it is ever said."""
    number, claim = services.enrolment.make_claim(
        uses=body.uses,
        hours=body.hours,
        actor=actor,
        approve=body.approve,
        listed=[Listed(entry.device, entry.key_id) for entry in body.listed],
    )
    with services.room.store.begin() as tx:
        found = next(item for item in tx.claims.list() if item.id == number)
    return views.claim(found) | {"claim": claim.render()}


@router.get("/claims", tags=["devices"])
def list_claims(services: TheServices, _actor: Reader) -> Any:
    """All claims, without their secrets."""
    with services.room.store.begin() as tx:
        return {"claims": [views.claim(found) for found in tx.claims.list()]}


@router.delete("/claims/{number}", status_code=204, tags=["devices"])
def revoke_claim(number: int, services: TheServices, actor: Operator) -> Response:
    """End a claim."""
    services.enrolment.revoke_claim(number, actor=actor)
    return Response(status_code=204)


@router.get("/requests", tags=["devices"])
def list_requests(services: TheServices, _actor: Reader) -> Any:
    """The devices that wait for an operator, the oldest first."""
    with services.room.store.begin() as tx:
        open_ones = tx.requests.open(at=int(services.room.clock()))
    return {"requests": [views.request(found) for found in open_ones]}


@router.post("/requests/{device}/approve", tags=["devices"])
def approve_request(
    device: str, services: TheServices, actor: Operator, key_id: str = ""
) -> dict[str, Any]:
    """Let a device in that waits; with a key id (or its beginning), under that key alone."""
    found = services.enrolment.approvals.approve(device, key_id=key_id, actor=actor)
    return views.request(found)


@router.post("/requests/{device}/deny", status_code=204, tags=["devices"])
def deny_request(device: str, services: TheServices, actor: Operator) -> Response:
    """Refuse a device that waits."""
    services.enrolment.approvals.deny(device, actor=actor)
    return Response(status_code=204)


@router.get("/devices", tags=["devices"])
def list_devices(services: TheServices, _actor: Reader, to: str = "all") -> Any:
    """The devices that a filter means, with their newest telemetry."""
    with services.room.store.begin() as tx:
        named = {found.id for found in devices_of(tx, meant(tx, to), revoked=True)}
        return {"devices": [view for view in views.devices(tx) if view["id"] in named]}


@router.get("/devices/{device}", tags=["devices"])
def show_device(device: str, services: TheServices, _actor: Reader) -> Any:
    """One device with its newest telemetry, its events, and its part in rollouts."""
    with services.room.store.begin() as tx:
        return views.device(tx, device)


@router.get("/devices/{device}/telemetry", tags=["devices"])
def device_telemetry(device: str, services: TheServices, _actor: Reader, limit: int = 120) -> Any:
    """The series of a device, oldest first."""
    with services.room.store.begin() as tx:
        views.device(tx, device, events=0)
        return views.telemetry(tx, device, limit=max(1, min(limit, 10_000)))


@router.get("/devices/{device}/events", tags=["devices"])
def device_events(
    device: str,
    services: TheServices,
    _actor: Reader,
    limit: int = 100,
    before: int | None = None,
) -> Any:
    """What a device reported of its installs, newest first; `next`: where the next page begins."""
    limit = max(1, min(limit, 1000))
    with services.room.store.begin() as tx:
        views.device(tx, device, events=0)
        rows = tx.history.page(device, limit=limit, before=before)
    shown = [views.event_view(event) for _, _, event in rows]
    return device_views.event_page(rows, shown, limit)


class TagsBody(BaseModel):
    """Tags to set, and keys of tags to remove."""

    tags: dict[str, str] = Field({}, max_length=MAX_TAGS)
    remove: list[str] = Field([], max_length=MAX_TAGS)


@router.post("/devices/{device}/tags", tags=["devices"])
def tag_device(device: str, body: TagsBody, services: TheServices, actor: Operator) -> Any:
    """Set and remove tags of a device; all that it has then."""
    return {"tags": services.groups.tag(device, body.tags, body.remove, actor=actor)}


@router.get("/quarantines", tags=["devices"])
def list_quarantines(services: TheServices, _actor: Reader, to: str = "all") -> Any:
    """The bundles that failed on devices and are quarantined there."""
    with services.room.store.begin() as tx:
        return {"quarantines": quarantines(tx, meant(tx, to))}


class RetryBody(BaseModel):
    """The bundle that is to be tried again: its digest, or model-version."""

    bundle: str


@router.post("/devices/{device}/retry", status_code=201, tags=["devices"])
def retry(device: str, body: RetryBody, services: TheServices, actor: Operator) -> Any:
    """Let a device try a quarantined bundle again: the rollout that asks it."""
    made = lift(services.room, services.deployments, device, body.bundle, actor=actor)
    with services.room.store.begin() as tx:
        return views.rollout(tx, made)


@router.post("/devices/{device}/decommission", status_code=204, tags=["devices"])
def decommission_device(device: str, services: TheServices, actor: Admin) -> Response:
    """Take a device out for good, and what is kept for it away."""
    services.enrolment.decommission(device, actor=actor)
    return Response(status_code=204)


@router.delete("/devices/{device}", status_code=204, tags=["devices"])
def forget_device(device: str, services: TheServices, actor: Admin) -> Response:
    """Take a device out of the fleet."""
    services.enrolment.forget(device, actor=actor)
    return Response(status_code=204)


@router.post("/devices/{device}/revoke", status_code=204, tags=["devices"])
def revoke_device(device: str, services: TheServices, actor: Admin) -> Response:
    """Take back a device's certificates and its key; it is off the broker when this answers."""
    services.enrolment.revoke(device, actor=actor)
    return Response(status_code=204)


@router.get("/audit", tags=["keys"])
def audit(
    services: TheServices,
    _actor: Reader,
    limit: int = 200,
    since: int = 0,
    who: str = "*",
    what: str = "*",
    before: int | None = None,
) -> Any:
    """Who changed what, when, from where; newest first. `next` is `before` of the next page."""
    limit = max(1, min(limit, 10_000))
    with services.room.store.begin() as tx:
        rows = tx.ledger.find(limit=limit, since=since, who=who, what=what, before=before)
    return {
        "audit": [{"number": number} | dataclasses.asdict(row) for number, row in rows],
        "next": rows[-1][0] if len(rows) == limit else None,
    }
