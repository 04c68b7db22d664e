"""The second server of the front: the same application, for the network.

uvicorn has one TLS configuration a server, so the network has a server of its own in the same
process and event loop. Its protocol adds what a stranger makes necessary: a request, head and
body, has an end in time; who holds too many connections is told 503 on the next one; and each
request is told the name in its client's certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgefleet_agent.serving.access import PEER, Asgi, Gate, Message, Receive, Send, Tally
from edgefleet_agent.serving.answer import busy, refuse
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.doorway import Doorway
from edgefleet_agent.serving.lan import LanConfig
from edgefleet_agent.serving.lan_tls import LanTls, common_name

_KEEP_ALIVE_S: Final = 30
_RENEW_TICKS: Final = 10  # of uvicorn's 0.1 s
_CLOSE: Final = (b"connection", b"close")


class LanServer(uvicorn.Server):
    """Answers on the network's sockets.

    Raises:
        OperatorError: see `LanTls`.
    """

    def __init__(self, config: ServingConfig, lan: LanConfig, app: Asgi, tally: Tally) -> None:
        self._lan, self._tally, self._patience_s = lan, tally, config.request_s
        self._tls = LanTls(lan)
        super().__init__(
            uvicorn.Config(
                Gate(app, lan, tally),
                access_log=False,
                date_header=False,
                http=_protocol(config.request_s, lan.max_connections, tally),
                interface="asgi3",
                lifespan="off",
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                timeout_keep_alive=_KEEP_ALIVE_S,
                ws="none",
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept; as uvicorn's, but for how connections come in."""
        await self.lifespan.startup()

        def make() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg] # uvicorn's own way
                config=self.config, server_state=self.server_state, app_state={}
            )

        self.servers: list[Any] = [
            Doorway(
                sock,
                self._tls.context,
                make,
                places=2 * self._lan.max_connections,  # beyond the half, to be told that it is full
                held=self._addresses,
                patience_s=self._patience_s,
                on_refused=self._tally.refuse,
            )
            for sock in sockets or []
        ]
        self.started = True

    def _addresses(self) -> Counter[str]:
        return Counter(address_of(held) for held in self.server_state.connections)

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's tenth of a second; now and then the certificate is looked at."""
        if counter % _RENEW_TICKS == 0:
            self._tls.renew()
            for doorway in self.servers:
                doorway.check()
        return await super().on_tick(counter)


def _protocol(request_s: float, most: int, tally: Tally) -> type[asyncio.Protocol]:
    return type("LanProtocol", (_Protocol,), {"request_s": request_s, "most": most, "tally": tally})


def address_of(connection: Any) -> str:
    """Of a connection's client."""
    client: tuple[str, int] | None = connection.client
    return client[0] if client else ""


class _Protocol(H11Protocol):
    """HTTP/1.1 with a client that nobody knows.

    `_late` runs while the head of a request is awaited that began to come, or the rest of one that
    was answered early; the body of a request that is being answered is the application's to bound.
    h11 whatever is installed: it bounds a head to 16 KiB, httptools does not.
    """

    request_s: float
    most: int
    tally: Tally
    is_served = True
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        name = common_name(transport.get_extra_info("ssl_object").getpeercert())
        self.app_state = {**self.app_state, PEER: name}
        served = [address_of(c) for c in self.connections if getattr(c, "is_served", False)]
        if len(served) > self.most or served.count(address_of(self)) > self.most // 2:
            self.is_served, self.app = False, _full
            self.tally.refuse("full")
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    def _watch(self) -> None:
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._calm()
        elif self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(self.request_s, self._give_up)

    def _calm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        self.tally.refuse("slow")
        with contextlib.suppress(h11.LocalProtocolError):
            if self.conn.our_state is h11.IDLE:
                answer = refuse(408, f"no request came within {self.request_s:g} s")
                self.transport.write(answer.raw())
        self.transport.close()


async def _full(scope: Message, receive: Receive, send: Send) -> None:
    """What is answered on a connection that is one too many."""
    del scope, receive
    await busy("too many connections: try again", _CLOSE).send(send)
