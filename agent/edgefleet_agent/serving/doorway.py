"""Accepts the network's connections: TLS first, few at a time, no time to waste.

asyncio's own servers neither bound the clients that have not said a word yet nor let their
handshake's time be set through uvicorn; a stranger could so take all file descriptors of the front.
Here a client has so many seconds for a handshake, an address has a share of the places, and what
comes beyond the bound is hung up on. A client that speaks plain HTTP is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

from edgefleet_agent.serving.answer import refuse

_log = logging.getLogger(__name__)

HANDSHAKE_S: Final = 10.0
_GOODBYE_S: Final = 5.0
_PAUSE_S: Final = 1.0
_MOST_PLAIN: Final = 65536
_TLS_RECORD: Final = 0x16
_PLAIN: Final = refuse(400, "this port speaks TLS: use https://").raw()


class Doorway:
    """One listening socket; shaped like `asyncio.Server` as far as uvicorn uses it.

    Args:
        listener: bound and listening.
        context: of the server.
        make: a protocol for a connection whose handshake is done.
        places: how many connections there may be, half of them from one address.
        held: the addresses of those whose handshake is done.
        patience_s: how long a client may leave unread what it was sent.
        on_refused: called with the reason when somebody does not get through.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        *,
        places: int,
        held: Callable[[], Counter[str]],
        patience_s: float,
        on_refused: Callable[[str], None],
    ) -> None:
        self._listener, self._context, self._make = listener, context, make
        self._places, self._held, self._on_refused = places, held, on_refused
        self._patience_ms = max(1, round(patience_s * 1000))
        self._within: Counter[str] = Counter()
        self._arrivals: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(), name="doorway")

    def close(self) -> None:
        """Accept no more, and hang up on who is still in the handshake."""
        for task in (self._accepting, *self._arrivals):
            task.cancel()

    async def wait_closed(self) -> None:
        """Until all that `close` ended has ended."""
        await asyncio.wait((self._accepting, *self._arrivals))

    def check(self) -> None:
        """Raise what ended it, if anything did: a front that accepts nobody is to be replaced."""
        if self._accepting.done() and not self._accepting.cancelled():
            self._accepting.result()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, where = await loop.sock_accept(self._listener)
            except ConnectionError:  # it left before it was let in
                continue
            except OSError as error:
                _log.error("cannot accept connections: %s", error.strerror)
                await asyncio.sleep(_PAUSE_S)
                continue
            address = str(where[0])
            held = self._held() + self._within
            if held.total() >= self._places or held[address] >= self._places // 2:
                self._on_refused("full")
                sock.close()
                continue
            self._within[address] += 1
            task = loop.create_task(self._arrive(sock, address))
            self._arrivals.add(task)
            task.add_done_callback(self._arrivals.discard)

    async def _arrive(self, sock: socket.socket, address: str) -> None:
        is_ours = True
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._patience_ms)
            async with asyncio.timeout(HANDSHAKE_S):
                if await _first_byte(sock) != _TLS_RECORD:
                    self._on_refused("plain")
                    _answer_plainly(sock)
                    return
                is_ours = False  # asyncio's from here on, also where the handshake fails
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._make,
                    sock,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_S,
                    ssl_shutdown_timeout=_GOODBYE_S,
                )
        except OSError:  # ssl.SSLError and TimeoutError are
            self._on_refused("handshake")
        finally:
            self._within[address] -= 1
            if not self._within[address]:
                del self._within[address]
            if is_ours:
                sock.close()


def _answer_plainly(sock: socket.socket) -> None:
    """What came is read, since the kernel forgets the answer of a socket that has unread bytes."""
    with contextlib.suppress(OSError):
        sock.recv(_MOST_PLAIN)
        sock.send(_PLAIN)
        sock.shutdown(socket.SHUT_WR)


async def _first_byte(sock: socket.socket) -> int | None:
    """What a client says first, left unread; None if it hangs up."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    sock.setblocking(False)

    def ready() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(sock, ready)
    try:
        await readable
    finally:
        loop.remove_reader(sock)
    return next(iter(sock.recv(1, socket.MSG_PEEK)), None)
