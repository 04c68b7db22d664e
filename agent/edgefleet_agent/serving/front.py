"""The front: one asyncio process that speaks HTTP and knows the routes; no NumPy, no runtime.

Run as `python -m edgefleet_agent.serving.front`. It inherits the listening sockets and a control
channel (JSON lines) from the agent, and ends when that closes. Messages in: its configuration,
then tables, how far what is served has drifted, and `measured`. Messages out: `routed`,
`listening`, `drained`, `stuck`, `counts`, `measure`.
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
from edgefleet_agent.serving.access import Tally
from edgefleet_agent.serving.app import App
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.drift import parse_drift
from edgefleet_agent.serving.lan_server import LanServer
from edgefleet_agent.serving.measuring import ANSWERED, Measuring
from edgefleet_agent.serving.route import parse_table
from edgefleet_agent.serving.router import Router
from edgefleet_agent.serving.server import QuietServer
from edgefleet_contract import codec

_MAX_LINE: Final = 16 * 1024 * 1024
_KEEP_ALIVE_S: Final = 75
_GRACE_S: Final = 1.0


async def serve(
    control: socket.socket, sockets: list[socket.socket], lan: list[socket.socket]
) -> None:
    """Serve until the agent hangs up; on `lan` for the network."""
    reader, writer = await asyncio.open_connection(sock=control, limit=_MAX_LINE)

    def tell(message: dict[str, object]) -> None:
        writer.write(json.dumps(message).encode() + b"\n")

    config = codec.decode(ServingConfig, json.loads(await reader.readline()), what="serving")
    router, tally = Router(config, tell), Tally()
    measuring = Measuring(config, tell) if config.measure.enabled else None
    app = App(config, router, tally, measuring)
    server = QuietServer(
        uvicorn.Config(
            app,
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
    servers: list[tuple[uvicorn.Server, list[socket.socket]]] = [(server, sockets)]
    if config.lan is not None:
        servers.append((LanServer(config, config.lan, app, tally), lan))
    # The routes first: a front that replaces another must know what that one knew.
    await router.apply(parse_table(json.loads(await reader.readline())))
    serving = [asyncio.create_task(each.serve(sockets=taken)) for each, taken in servers]
    by_grpc = None
    if config.grpc:
        from edgefleet_agent.serving import grpc_door  # needs an extra, and memory

        by_grpc = await grpc_door.serve(app, config.grpc, max_body_bytes=config.max_body_bytes)
    tell({"listening": len(sockets) + len(lan)})
    obeying = asyncio.create_task(_obey(reader, router, measuring))
    await asyncio.wait((*serving, obeying), return_when=asyncio.FIRST_COMPLETED)
    for each, _ in servers[1:]:
        each.should_exit = True
    server.stop()
    if by_grpc is not None:
        await by_grpc.stop(_GRACE_S)
    await asyncio.gather(*serving)
    obeying.cancel()
    router.close()
    writer.close()


async def _obey(reader: asyncio.StreamReader, router: Router, measuring: Measuring | None) -> None:
    while line := await reader.readline():
        message = json.loads(line)
        if "drift" in message:
            router.drifted(message["drift"], parse_drift(message))
        elif ANSWERED not in message:
            await router.apply(parse_table(message))
        elif measuring is not None:
            measuring.heard(message)


def main(argv: list[str]) -> None:
    """Take what was inherited, and serve."""
    logging.basicConfig(level=logging.WARNING, format="front: %(message)s")
    fds = child.arguments(argv)
    control = socket.socket(fileno=fds.pop("control"))
    listeners = {name: socket.socket(fileno=fd) for name, fd in fds.items()}
    lan = [sock for name, sock in listeners.items() if name.startswith("lan")]
    local = [sock for name, sock in listeners.items() if not name.startswith("lan")]
    asyncio.run(serve(control, local, lan))


if __name__ == "__main__":
    main(sys.argv)
