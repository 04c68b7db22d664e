"""The HTTP door, as a raw ASGI application: which path means what, and what is refused.

Bodies pass through unread: what is in them is the worker's business. Spec: docs/spec/api.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from edgefleet_agent.runtime.frames import Ask, Copy, Frame
from edgefleet_agent.serving.answer import Answer, busy, refuse
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.door import Asked, Door, Headers, Inference, Places
from edgefleet_agent.serving.doors import DOORS
from edgefleet_agent.serving.link import DeadlinePassed, NoWorker, QueueFull, WorkerLost
from edgefleet_agent.serving.router import Entry, Router
from edgefleet_agent.serving.versions import drawn

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

VERSION_HEADER: Final = b"edgefleet-model-version"
_PATIENCE: Final = 4  # times the limit that is read and thrown away, so that the client hears why


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
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        doors, places = DOORS.at(scope["path"])
        if not doors:
            return refuse(404, f"nothing is served at {scope['path'][:200]}")
        door = doors.get(method)
        if door is None:
            return _only(scope["method"], doors)
        if isinstance(door.to, Inference):
            return await self._infer(door.to, places, scope, receive)
        if method == "GET":
            return door.to(Asked(self._router.entries, places))
        body = await self._read(scope, receive)
        if body is None:
            return self._too_large()
        return door.to(Asked(self._router.entries, places, body))

    async def _infer(
        self, inference: Inference, places: Places, scope: Message, receive: Receive
    ) -> Answer:
        start = time.perf_counter()
        opening = _opening(inference, scope["headers"])
        body = await self._read(scope, receive, b"" if isinstance(opening, Answer) else opening)
        # From here to the worker's queue nothing waits: the route that is found is the one used.
        found = inference.find(self._router.entries, places)
        if isinstance(found, Answer):
            return found
        entry = found
        answer: Answer | Frame
        if body is None:
            answer = self._too_large()
        elif isinstance(opening, Answer):
            answer = opening
        else:
            asked = time.perf_counter()
            entry = drawn(self._router.entries, found, places)
            answer = await self._ask(entry, inference.ask, body)
            if entry is not found and _status(answer) != 200:
                canary, failed, now = entry, answer, time.perf_counter()
                left_s = self._config.deadline_s - (now - asked)
                found = inference.find(self._router.entries, places)  # another, after a swap
                if isinstance(found, Answer):
                    return found
                entry, answer = found, await self._ask(found, inference.ask, body, left_s)
                if _status(answer) == 200:  # else the request is to blame
                    status = max(500, _status(failed))
                    self._router.count(canary, status, round((now - start) * 1e6))
                start = now
        took = round((time.perf_counter() - start) * 1e6)
        if isinstance(answer, Frame):
            frame, answer = answer, Answer(answer.code, answer.body)
            if frame.code == 200 and body is not None:
                answer = inference.present(frame)
                # Comes after the answer is written: nothing waits between here and there.
                copy = Copy(inference.ask, took, body, frame.body)
                asyncio.get_running_loop().call_soon(self._router.copy, entry, copy)
        # A canary that was asked by name has nobody to stand in for it: that does not judge it.
        is_told = entry is not found or not entry.route.is_canary
        self._router.count(entry, answer.status, took, is_told=is_told)
        version = (VERSION_HEADER, b"%d" % entry.route.version)
        return Answer(answer.status, answer.body, answer.content_type, (*answer.headers, version))

    async def _ask(
        self, entry: Entry, ask: Ask, body: bytes, deadline_s: float | None = None
    ) -> Answer | Frame:
        name = entry.route.slot
        try:
            return await entry.link.ask(ask, body, deadline_s=deadline_s)
        except QueueFull:
            return busy(f"{self._config.queue} requests wait for {name}: try again")
        except NoWorker:
            return busy(f"no worker of {name} came back in time: try again")
        except DeadlinePassed:
            return refuse(504, f"{name} did not answer within {entry.link.deadline_s:g} s")
        except WorkerLost:
            times = "" if entry.route.is_canary else "twice "
            return refuse(500, f"the worker of {name} died {times}over this request")

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


def _status(answer: Answer | Frame) -> int:
    return answer.code if isinstance(answer, Frame) else answer.status


def _opening(inference: Inference, headers: Headers) -> bytes | Answer:
    coding = next((value for name, value in headers if name == b"content-encoding"), b"identity")
    if coding.lower() != b"identity":
        said = coding[:50].decode("latin-1")
        return refuse(415, f"a body in Content-Encoding {said!r} is not read: send it plainly")
    return inference.opening(headers)


def _only(method: str, doors: dict[str, Door]) -> Answer:
    words = ", ".join(("GET, HEAD" if allowed == "GET" else allowed) for allowed in doors)
    return refuse(405, f"{method} is not allowed here, {words} is", (b"allow", words.encode()))
