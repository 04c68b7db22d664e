"""Answers predictions that are asked for over the broker, for one slot: bounded, one at a time.

The model is asked over the agent's own Unix socket, as every source asks it, so queue, deadline and
errors are those of HTTP. Everything here runs on the event loop; HTTP is spoken in a thread.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from edgefleet_agent.sources.config import SourceConfig
from edgefleet_agent.sources.options import MqttSourceOptions
from edgefleet_agent.sources.requests import (
    Rate,
    Request,
    Response,
    answer_topic,
    answered,
    headers_of,
    refused,
)
from edgefleet_contract import codec

_log = logging.getLogger(__name__)

_ASK_S: Final = 40.0
_ROOM: Final = 1024
"""What the broker counts of an answer beside its body."""


class Line(Protocol):
    """The agent's connection."""

    @property
    def largest_packet(self) -> int:
        """The most bytes that the broker takes in a packet."""
        ...

    def respond(self, response: Response) -> None:
        """Send an answer, QoS 0."""
        ...


class Responder:
    """One source of kind `mqtt`.

    Args:
        config: of the source.
        path: the agent's Unix socket.
        fleet, device: below whose topics answers go.
        line: sends them.
    """

    def __init__(
        self, config: SourceConfig, *, path: str, fleet: str, device: str, line: Line
    ) -> None:
        self.config = config
        self._options = codec.decode(MqttSourceOptions, dict(config.options), what=config.name)
        self._path, self._fleet, self._device, self._line = path, fleet, device, line
        self._rate = Rate(self._options.per_s)
        self._waiting: asyncio.Queue[tuple[Request, str]] = asyncio.Queue(config.queue)
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self.counts: Counter[str] = Counter()

    def take(self, request: Request) -> None:
        """A request came: it waits for its turn, or is refused."""
        self.counts["read"] += 1
        topic = answer_topic(self._fleet, self._device, request)
        if topic is None:
            self.counts["dropped"] += 1
            _log.warning("source %s: asked to answer elsewhere, dropped", self.config.name)
        elif len(request.body) > self._options.max_bytes:
            why = f"{len(request.body)} bytes, at most {self._options.max_bytes} are taken"
            self._refuse(request, topic, 413, why)
        elif not self._rate.allows(self._clock()):
            self._refuse(request, topic, 503, "too many requests a second", retry_after_s=1)
        elif self._waiting.full():
            self._refuse(request, topic, 503, "too many requests wait", retry_after_s=1)
        else:
            self._waiting.put_nowait((request, topic))

    async def run(self) -> None:
        """Answer what waits, one after another."""
        while True:
            request, topic = await self._waiting.get()
            response = await asyncio.to_thread(self._ask, request, topic)
            if len(response.body) + _ROOM > self._line.largest_packet:
                why = f"the answer has {len(response.body)} bytes, more than the broker takes"
                response = refused(request, topic, 413, why)
            is_good = response.properties["status"] == "200"
            self.counts["predicted" if is_good else "failed"] += 1
            self._line.respond(response)

    def _refuse(
        self, request: Request, topic: str, status: int, why: str, *, retry_after_s: int = 0
    ) -> None:
        self.counts["dropped" if status == 503 else "failed"] += 1
        self._line.respond(refused(request, topic, status, why, retry_after_s=retry_after_s))

    def _ask(self, request: Request, topic: str) -> Response:
        headers = headers_of(request)
        if headers is None:
            return refused(request, topic, 400, "inference-header-content-length is no number")
        connection = _UnixConnection(self._path)
        try:
            where = f"/v2/models/{request.slot}/infer"
            connection.request("POST", where, request.body, headers)
            reply = connection.getresponse()
            told = {name.lower(): value for name, value in reply.getheaders()}
            return answered(request, topic, reply.status, told, reply.read())
        except (OSError, http.client.HTTPException):
            return refused(request, topic, 503, "nothing serves at the moment", retry_after_s=1)
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
