"""Route: the stream of changes (server-sent events). It says what changed; ask for the rest."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from edgefleet_contract.errors import TransientError
from edgefleet_fleet.api_common import Reader, Route, TheServices
from edgefleet_fleet.errors import Denied
from edgefleet_fleet.roles import Permission

_CHECK_S: Final = 15.0
router = APIRouter(prefix="/api/v1", tags=["stream"], route_class=Route)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream_changes(
    request: Request, services: TheServices, _actor: Reader
) -> StreamingResponse:
    """`event: change` with `{"noun": …, "id": …}`, as it happens; a comment every 15 s.

    It ends, within as long, for somebody who may not ask any more.
    """

    async def lines() -> AsyncIterator[str]:
        yield ": hello\n\n"
        checked = time.monotonic()
        async for change in services.room.changes.watch():
            if change is None or time.monotonic() - checked >= _CHECK_S:
                try:
                    await services.room.threads.ask(services.access.actor, request, Permission.READ)
                except Denied:
                    return
                except TransientError:
                    pass  # asked again when the next change comes
                checked = time.monotonic()
            if change is None:
                yield ": still here\n\n"
            else:
                body = json.dumps({"noun": change.noun, "id": change.id})
                yield f"event: change\ndata: {body}\n\n"

    return StreamingResponse(
        lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )
