"""The HTTP door, as a raw ASGI application: which path means what, and what is refused.

Bodies pass through unread: what is in them is the worker's business. Spec: docs/spec/api.md.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from edgefleet_agent.runtime.frames import Ask, Copy
from edgefleet_agent.serving import pages
from edgefleet_agent.serving.answer import Answer, busy, give, refuse
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.link import DeadlinePassed, NoWorker, QueueFull, WorkerLost
from edgefleet_agent.serving.router import Entry, Router

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

VERSION_HEADER: Final = b"edgefleet-model-version"
_SIGNATURE: Final = "serving_default"
_PATIENCE: Final = 4  # times the limit that is read and thrown away, so that the client hears why
_MODEL = re.compile(
    r"/v1/models/(?P<slot>[^/:]+)(?:/versions/(?P<version>[^/:]+))?(?P<rest>/metadata|:[a-z]+)?"
)
_READ: Final = ("GET", "HEAD")


class _Gone(Exception):
    """The client hung up before its request was whole."""


class App:
    """Answers HTTP requests from the routes."""

    def __init__(self, config: ServingConfig, router: Router) -> None:
        self._config, self._router = config, router

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI 3; only HTTP comes here, the server has lifespan and WebSockets off."""
        try:
            answer = await self._answer(scope, receive)
        except _Gone:
            return
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": answer.head()}
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        found = _MODEL.fullmatch(path)
        if found is None:
            return self._plain_page(path, method)
        rest = found["rest"] or ""
        if rest == ":predict":
            if method != "POST":
                return _only(method, "POST")
            return await self._predict(found, scope, receive)
        if rest.startswith(":"):
            return refuse(404, f"method {rest[1:]!r} is not served here, 'predict' is")
        if method not in _READ:
            return _only(method, "GET", "HEAD")
        entry = self._find(found)
        if isinstance(entry, Answer):
            return entry
        return pages.metadata(entry, _SIGNATURE) if rest else pages.status(entry)

    def _plain_page(self, path: str, method: str) -> Answer:
        page = {
            "/healthz": lambda: give({"alive": True}),
            "/readyz": lambda: pages.readiness(self._router.entries),
            "/metrics": lambda: pages.metrics(self._router.entries),
            "/v1/models": lambda: pages.model_list(self._router.entries),
        }.get(path)
        if page is None:
            return refuse(404, f"nothing is served at {path[:200]}")
        return page() if method in _READ else _only(method, "GET", "HEAD")

    def _find(self, found: re.Match[str]) -> Entry | Answer:
        entry, version = self._router.find(found["slot"]), found["version"]
        if entry is not None and version in (None, str(entry.route.version)):
            return entry
        wanted = f"Latest({found['slot']})"
        if version is not None:
            wanted = f"Specific({found['slot']}, {version})"
        return refuse(404, f"Servable not found for request: {wanted}")

    async def _predict(self, found: re.Match[str], scope: Message, receive: Receive) -> Answer:
        start = time.perf_counter()
        body = await self._read(scope, receive)
        # From here to the worker's queue nothing waits: the route that is found is the one used.
        entry = self._find(found)
        if isinstance(entry, Answer):
            return entry
        if body is None:
            answer = refuse(413, f"the body is larger than {self._config.max_body_bytes} bytes")
        else:
            answer = await self._ask(entry, body)
        took = round((time.perf_counter() - start) * 1e6)
        self._router.count(entry, answer.status, took)
        if answer.status == 200 and body is not None:
            # Comes after the answer is written: nothing waits between here and there.
            copy = Copy(Ask.PREDICT_V1, took, body, answer.body)
            asyncio.get_running_loop().call_soon(self._router.copy, entry, copy)
        version = (VERSION_HEADER, b"%d" % entry.route.version)
        return Answer(answer.status, answer.body, answer.content_type, (*answer.headers, version))

    async def _ask(self, entry: Entry, body: bytes) -> Answer:
        name = entry.route.slot
        try:
            frame = await entry.link.ask(Ask.PREDICT_V1, body)
        except QueueFull:
            return busy(f"{self._config.queue} requests wait for {name}: try again")
        except NoWorker:
            return busy(f"no worker of {name} came back in time: try again")
        except DeadlinePassed:
            return refuse(504, f"{name} did not answer within {self._config.deadline_s:g} s")
        except WorkerLost:
            return refuse(500, f"the worker of {name} died twice over this request")
        return Answer(frame.code, frame.body)

    async def _read(self, scope: Message, receive: Receive) -> bytes | None:
        """The body; None if it is too large."""
        limit = self._config.max_body_bytes
        announced = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        too_large = int(announced) > limit
        if int(announced) > limit * _PATIENCE:
            return None
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            piece, more = message.get("body", b""), message.get("more_body", False)
            size += len(piece)
            too_large = too_large or size > limit
            if too_large:
                pieces.clear()
                if size > limit * _PATIENCE:
                    return None
            else:
                pieces.append(piece)
        if too_large:
            return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _only(method: str, *allowed: str) -> Answer:
    words = ", ".join(allowed)
    return refuse(405, f"{method} is not allowed here, {words} is", (b"allow", words.encode()))
