"""Routes: enrolment, claims, devices, the audit trail."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from edgefleet_contract import codec
from edgefleet_contract.canonical import MAX_BYTES
from edgefleet_contract.errors import Malformed
from edgefleet_contract.messages import CertificateRequest, EnrolRequest, parse
from edgefleet_fleet import views
from edgefleet_fleet.access import address_of
from edgefleet_fleet.api_common import Admin, Operator, Reader, TheServices
from edgefleet_fleet.cohort import parse_filter
from edgefleet_fleet.deployments import traits_of

router = APIRouter(prefix="/api/v1")


class ClaimBody(BaseModel):
    """How often a claim may be used, and for how long."""

    uses: int = Field(1, ge=1, le=10_000)
    hours: float = Field(24, gt=0, le=24 * 366)


@router.post("/enrol", tags=["devices"])
async def enrol(request: Request, services: TheServices) -> Any:
    """Exchange a claim and a certificate request for a client certificate."""
    message = parse(EnrolRequest, await _body(request))
    address = request.client.host if request.client is not None else ""
    from starlette.concurrency import run_in_threadpool

    answer = await run_in_threadpool(services.enrolment.enrol, message, address=address)
    return codec.encode(answer)


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
    number, claim = services.enrolment.make_claim(uses=body.uses, hours=body.hours, actor=actor)
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


@router.get("/devices", tags=["devices"])
def list_devices(services: TheServices, _actor: Reader, to: str = "all") -> Any:
    """The devices that a filter means, with their newest telemetry."""
    wanted = parse_filter(to)
    with services.room.store.begin() as tx:
        known = tx.devices.list(revoked=True)
        meant = {found.id for found in known if wanted.matches(traits_of(found))}
        return {"devices": [view for view in views.devices(tx) if view["id"] in meant]}


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
def audit(services: TheServices, _actor: Reader, limit: int = 200) -> Any:
    """Who changed what, when, from where; newest first."""
    with services.room.store.begin() as tx:
        rows = tx.ledger.audit(limit=max(1, min(limit, 10_000)))
    return {"audit": [dataclasses.asdict(row) for row in rows]}
