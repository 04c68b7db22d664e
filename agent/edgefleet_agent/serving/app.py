"""The HTTP door, as a raw ASGI application: which path means what, and what is refused.

Bodies pass through unread: what is in them is the worker's business. Spec: docs/spec/api.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from edgefleet_agent.serving.access import ADMITTED, Pass, Tally
from edgefleet_agent.serving.answer import Answer, refuse
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.door import Asked, Door, Headers, Inference, Measure, Places
from edgefleet_agent.serving.doors import DOORS
from edgefleet_agent.serving.inferring import Inferring
from edgefleet_agent.serving.measuring import Gone, Measuring
from edgefleet_agent.serving.router import Router

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_EVERYTHING: Final = Pass("this machine")
_PATIENCE: Final = 4  # times the limit that is read and thrown away, so that the client hears why


class _Slow(Exception):
    """The request did not arrive in time."""


class _Gone(Exception):
    """The client hung up before its request was whole."""


class App:
    """Answers HTTP requests from the routes."""

    def __init__(
        self,
        config: ServingConfig,
        router: Router,
        tally: Tally | None = None,
        measuring: Measuring | None = None,
    ) -> None:
        self._config, self._router, self._tally = config, router, tally or Tally()
        self._measuring = measuring
        self.inferring = Inferring(config, router)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI 3; only HTTP comes here, the server has lifespan and WebSockets off."""
        try:
            answer = await self._answer(scope, receive)
        except (_Gone, Gone):
            return
        except _Slow:
            text = f"the request did not arrive within {self._config.request_s:g} s"
            answer = refuse(408, text, (b"connection", b"close"))
        await answer.send(send)

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        doors, places = DOORS.at(scope["path"])
        if not doors:
            return refuse(404, f"nothing is served at {scope['path'][:200]}")
        door = doors.get(method)
        if door is None:
            return _only(scope["method"], doors)
        admitted: Pass = scope.get(ADMITTED, _EVERYTHING)
        if isinstance(door.to, Measure):
            return await self._measure(door.to, admitted, receive)
        if denied := admitted.denies(places.get("model")):
            return denied
        if isinstance(door.to, Inference):
            return await self._infer(door.to, places, scope, receive)
        body = b"" if method == "GET" else await self._read(scope, receive)
        if body is None:
            return self._too_large()
        entries = admitted.visible(self._router.entries)
        return door.to(Asked(entries, places, body, self._tally if admitted.sees_all else None))

    async def _measure(self, to: Measure, admitted: Pass, receive: Receive) -> Answer:
        if not admitted.measures:
            return refuse(403, f"{admitted.name} may not measure", (b"connection", b"close"))
        if self._measuring is None:
            return refuse(403, "measuring is switched off here", (b"connection", b"close"))
        if to.takes_job:
            return await self._measuring.run(receive)
        return await self._measuring.invite()

    async def _infer(
        self, inference: Inference, places: Places, scope: Message, receive: Receive
    ) -> Answer:
        start = time.perf_counter()
        opening = _opening(inference, scope["headers"])
        if isinstance(opening, Answer):
            await self._read(scope, receive)
            return await self.inferring.infer(inference, places, opening, start)
        body = await self._read(scope, receive, opening)
        return await self.inferring.infer(
            inference, places, self._too_large() if body is None else body, start
        )

    def page(self, method: str, path: str, body: bytes = b"") -> Answer:
        """What a path that is no inference answers, to whoever asks."""
        doors, places = DOORS.at(path)
        to = doors[method].to
        assert not isinstance(to, Inference | Measure)
        return to(Asked(self._router.entries, places, body))

    def _too_large(self) -> Answer:
        return refuse(413, f"the body is larger than {self._config.max_body_bytes} bytes")

    async def _read(self, scope: Message, receive: Receive, opening: bytes = b"") -> bytes | None:
        """The body behind what is to stand before it; None if it is too large."""
        limit = self._config.max_body_bytes
        announced = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        too_large = int(announced) > limit
        if int(announced) > limit * _PATIENCE:
            return None
        pieces = [opening] if opening else []
        size, more = 0, True
        end = asyncio.get_running_loop().time() + self._config.request_s
        while more:
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise _Slow from None
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


def _opening(inference: Inference, headers: Headers) -> bytes | Answer:
    coding = next((value for name, value in headers if name == b"content-encoding"), b"identity")
    if coding.lower() != b"identity":
        said = coding[:50].decode("latin-1")
        return refuse(415, f"a body in Content-Encoding {said!r} is not read: send it plainly")
    return inference.opening(headers)


def _only(method: str, doors: dict[str, Door]) -> Answer:
    words = ", ".join(("GET, HEAD" if allowed == "GET" else allowed) for allowed in doors)
    return refuse(405, f"{method} is not allowed here, {words} is", (b"allow", words.encode()))
