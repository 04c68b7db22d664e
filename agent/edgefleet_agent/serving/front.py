"""The front: one asyncio process that speaks HTTP and knows the routes; no NumPy, no runtime.

Run as `python -m edgefleet_agent.serving.front`. It inherits the listening sockets and a control
channel (JSON lines) from the agent, and ends when that closes. Messages in: its configuration,
then tables. Messages out: `routed`, `listening`, `drained`, `stuck`, `counts`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from typing import Final

import uvicorn

from edgefleet_agent.runtime import child
from edgefleet_agent.serving.app import App
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.route import parse_table
from edgefleet_agent.serving.router import Router
from edgefleet_agent.serving.server import QuietServer
from edgefleet_contract import codec

_MAX_LINE: Final = 16 * 1024 * 1024
_KEEP_ALIVE_S: Final = 75


async def serve(control: socket.socket, sockets: list[socket.socket]) -> None:
    """Serve until the agent hangs up."""
    reader, writer = await asyncio.open_connection(sock=control, limit=_MAX_LINE)

    def tell(message: dict[str, object]) -> None:
        writer.write(json.dumps(message).encode() + b"\n")

    config = codec.decode(ServingConfig, json.loads(await reader.readline()), what="serving")
    router = Router(config, tell)
    server = QuietServer(
        uvicorn.Config(
            App(config, router),
            access_log=False,
            date_header=False,
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
    # The routes first: a front that replaces another must know what that one knew.
    await router.apply(parse_table(json.loads(await reader.readline())))
    serving = asyncio.create_task(server.serve(sockets=sockets))
    tell({"listening": len(sockets)})
    obeying = asyncio.create_task(_obey(reader, router))
    await asyncio.wait((serving, obeying), return_when=asyncio.FIRST_COMPLETED)
    server.stop()
    await serving
    obeying.cancel()
    router.close()
    writer.close()


async def _obey(reader: asyncio.StreamReader, router: Router) -> None:
    while line := await reader.readline():
        await router.apply(parse_table(json.loads(line)))


def main(argv: list[str]) -> None:
    """Take what was inherited, and serve."""
    logging.basicConfig(level=logging.WARNING, format="front: %(message)s")
    fds = child.arguments(argv)
    control = socket.socket(fileno=fds.pop("control"))
    listeners = [socket.socket(fileno=fd) for fd in fds.values()]
    asyncio.run(serve(control, listeners))


if __name__ == "__main__":
    main(sys.argv)
