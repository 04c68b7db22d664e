"""Route: the stream of changes (server-sent events). It says what changed; ask for the rest."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from edgefleet_fleet.api_common import TheActor, TheServices

router = APIRouter(prefix="/api/v1", tags=["stream"])


@router.get("/events", response_class=StreamingResponse)
async def stream(services: TheServices, _actor: TheActor) -> StreamingResponse:
    """`event: change` with `{"noun": …, "id": …}`, as it happens; a comment every 15 s."""

    async def lines() -> AsyncIterator[str]:
        yield ": hello\n\n"
        async for change in services.room.changes.watch():
            if change is None:
                yield ": still here\n\n"
            else:
                body = json.dumps({"noun": change.noun, "id": change.id})
                yield f"event: change\ndata: {body}\n\n"

    return StreamingResponse(
        lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )
