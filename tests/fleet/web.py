"""The application behind a real socket, and a client that knows its address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import requests
import uvicorn
from fastapi import FastAPI

from edgefleet_fleet.tls import Protocol, ServerTls


class Web(requests.Session):
    """A session whose addresses begin at the server; redirects are looked at, not followed."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.trust_env = False

    def request(self, method, url, **more):  # type: ignore[no-untyped-def,override] # as requests'
        more["allow_redirects"] = False
        more.setdefault("timeout", 10)
        return super().request(method, self.base + url, **more)


@contextlib.contextmanager
def serving(app: FastAPI, tls: ServerTls | None = None) -> Iterator[Web]:
    """The application, served on a free port by a thread."""
    config = uvicorn.Config(
        app, http=Protocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    config.load()
    config.ssl = tls.context if tls is not None else None
    server = uvicorn.Server(config)

    async def serve(sock: socket.socket) -> None:
        await server.serve(sockets=[sock])
        for connection in list(server.server_state.connections):  # whoever did not end in time
            connection.transport.abort()
        await asyncio.sleep(0)  # they are closed by the loop

    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=lambda: asyncio.run(serve(sock)))
        thread.start()
        # The socket listens already: a request waits until the server takes it.
        try:
            scheme = "https" if tls is not None else "http"
            with Web(f"{scheme}://127.0.0.1:{sock.getsockname()[1]}") as web:
                yield web
        finally:
            server.should_exit = True
            thread.join(10)
