"""What every answer of the API has beside its body, in one place around all routes.

`ETag` and 304 for what is read, `RateLimit` for who asks, the first answer kept for those who ask
again with their key, and a bound for bodies. Streams and blobs pass through untouched.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefleet_contract.errors import Malformed, TransientError
from edgefleet_fleet.adapters.sql.store import Store
from edgefleet_fleet.api_common import KEYED
from edgefleet_fleet.budgets import Standing
from edgefleet_fleet.guards import Once, etag_of, names
from edgefleet_fleet.threads import MINE, Threads

log = logging.getLogger("edgefleet.api")

MAX_BODY: Final = 16 * 1024 * 1024
_API: Final = "/api/v1/"
_UPLOADS: Final = "/api/v1/blobs/"  # bounded by what a bundle says of the blob


class Answers:
    """The layer around the routes."""

    def __init__(self, app: ASGIApp, store: Store, threads: Threads) -> None:
        self._app, self._store, self._threads = app, store, threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        MINE.set(self._threads)
        if scope["type"] != "http" or not scope["path"].startswith(_API):
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        if not scope["path"].startswith(_UPLOADS):
            receive = _bounded(receive)
        await self._app(scope, receive, _Answer(scope, send, self._store).send)


class _Answer:
    """One answer on its way out."""

    def __init__(self, scope: Scope, send: Send, store: Store) -> None:
        self._scope, self._send, self._store = scope, send, store
        self._state: MutableMapping[str, Any] = scope["state"]
        self._start: Message = {}
        self._body = b""
        self._is_held = False

    async def send(self, message: Message) -> None:
        """Pass a message on, or hold it until the body is complete."""
        if message["type"] == "http.response.start":
            self._begin(message)
            if not self._is_held:
                await self._send(message)
        elif not self._is_held or message["type"] != "http.response.body":
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish()

    def _begin(self, start: Message) -> None:
        headers = MutableHeaders(scope=start)
        standing: Standing | None = self._state.get("standing")
        if standing is not None:
            headers.update(standing.headers())
        is_read = self._scope["method"] == "GET" and start["status"] == 200
        is_json = headers.get("content-type", "").startswith("application/json")
        self._start, self._is_held = start, "once" in self._state or (is_read and is_json)

    async def _finish(self) -> None:
        once: Once | None = self._state.get("once")
        status = self._start["status"]
        if once is not None:
            has_secret = KEYED[self._scope["route"].path]
            kept = None if has_secret else self._body
            try:
                await MINE.get().ask(once.answered, self._store, status, kept)
            except TransientError as error:  # whoever asks again is told to look [fleet-api-12.4]
                log.warning("an answer is not kept for its key: %s", error.message)
        elif self._tag():
            self._start["status"], self._body = 304, b""
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": self._body})

    def _tag(self) -> bool:
        """Give the answer its entity tag; whether the client has it already."""
        etag = etag_of(self._body)
        headers = MutableHeaders(scope=self._start)
        headers["ETag"] = etag
        headers.setdefault("Cache-Control", "private, no-cache")
        headers.add_vary_header("Authorization")
        headers.add_vary_header("Cookie")
        asked = Headers(scope=self._scope).get("if-none-match")
        try:
            is_known = asked is not None and names(asked, etag, weakly=True)
        except Malformed:
            is_known = False
        if is_known:
            del headers["content-length"]
            del headers["content-type"]
        return is_known


def _bounded(receive: Receive) -> Receive:
    there = 0

    async def limited() -> Message:
        nonlocal there
        message = await receive()
        there += len(message.get("body", b""))
        if there > MAX_BODY:
            raise HTTPException(413, f"a body of more than {MAX_BODY} bytes")
        return message

    return limited
