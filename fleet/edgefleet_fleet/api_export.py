"""Routes: everything of one kind as lines of JSON [fleet-api-14.5]."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from edgefleet_fleet import exports
from edgefleet_fleet.api_common import Reader, Route, TheServices
from edgefleet_fleet.export_columns import Noun

_LINES: Final = 200
router = APIRouter(prefix="/api/v1", tags=["export"], route_class=Route)


@router.get(
    "/export/{noun}",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
def export(noun: Noun, services: TheServices, _actor: Reader, since: int = 0) -> Response:
    """All devices, rollouts, bundles, rows of the audit trail or samples; oldest first."""
    found = exports.lines(services.room.store, noun, since=since)
    pieces = services.room.threads.each(_blocks(found))
    return StreamingResponse(pieces, media_type="application/x-ndjson")


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Lines by the hundred: each block costs a turn on a thread."""
    while block := b"".join(itertools.islice(lines, _LINES)):
        yield block
