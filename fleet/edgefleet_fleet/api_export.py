"""Routes: everything of one kind as lines of JSON [fleet-api-14.5]."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from edgefleet_fleet import exports
from edgefleet_fleet.api_common import Reader, TheServices
from edgefleet_fleet.export_columns import Noun

router = APIRouter(prefix="/api/v1", tags=["export"])


@router.get(
    "/export/{noun}",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
def export(noun: Noun, services: TheServices, _actor: Reader, since: int = 0) -> Response:
    """All devices, rollouts, bundles, rows of the audit trail or samples; oldest first."""
    found = exports.lines(services.room.store, noun, since=since)
    return StreamingResponse(found, media_type="application/x-ndjson")
