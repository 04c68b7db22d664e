"""`fleet serve`: puts a control room together, runs it, takes it down.

Order: the data directory is locked, the schema brought up to date, the HTTP port bound, the
broker started, the link connected, and only then the service says that it is ready. A task that
dies takes the process with it; whoever started it (systemd) starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from edgefleet_contract.errors import OperatorError
from edgefleet_fleet.adapters.mosquitto import Mosquitto
from edgefleet_fleet.adapters.mqtt_link import Endpoint, GmqttLink
from edgefleet_fleet.adapters.shelves import open_shelf
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.api import Services, create_app, services_of
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.tls import Protocol, ServerTls
from edgefleet_fleet.users import Users, hash_token
from edgefleet_fleet.work import Room

log = logging.getLogger("edgefleet.serve")

_DEFAULT_NAME: Final = "fleet"
_TIME_EVERY_S: Final = 600
_RENEW_EVERY_S: Final = 6 * 3600
_TICK_EVERY_S: Final = 30.0
_TICK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a control room can be reached, once it can."""

    url: str
    page: str
    mqtt_host: str
    mqtt_port: int


def open_room(data: DataDir, config: Config, *, http_port: int) -> Room:
    """The room of a data directory, its schema up to date, without broker or HTTP.

    Raises:
        OperatorError: the directory or the data base cannot be used, or belongs to another fleet.
    """
    data.root.mkdir(parents=True, exist_ok=True)
    store = Store(config.database_url or sqlite_url(data.database))
    try:
        store.migrate()
        with store.begin() as tx:
            stored = tx.ledger.setting("fleet")
            fleet = config.name or stored or _DEFAULT_NAME
            if stored is not None and stored != fleet:
                raise OperatorError(
                    f"{data.root} belongs to fleet {stored!r}, not {fleet!r}",
                    hint="leave --name out, or name another directory with --data",
                )
            tx.ledger.set_setting("fleet", fleet)
        authority = data.prepare(fleet, public_host=config.broker_host())
        token = data.read_token()
        shelf = open_shelf(config, data)
    except BaseException:
        store.close()
        raise
    room = Room(
        fleet=fleet,
        config=config,
        store=store,
        shelf=shelf,
        authority=authority,
        director=data.director(),
        keys=data,
        base_url=config.base_url(http_port),
        mqtt_host=config.broker_host(),
        mqtt_port=config.broker.address[1] if config.broker else config.mqtt_port,
    )
    Users(room).keep_local_admin(hash_token(token))
    return room


async def serve(data: DataDir, config: Config, *, ready: Callable[[Ready], None]) -> None:
    """Run a control room until SIGTERM or SIGINT.

    Raises:
        OperatorError: a port is taken, the broker is missing, the directory is in use.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    with data.locked(), _bound(config) as sock:
        http_port = sock.getsockname()[1]
        config = _with_mqtt_port(config)
        room = await asyncio.to_thread(open_room, data, config, http_port=http_port)
        try:
            room.changes.attach(loop)
            publications = Publications.open(room)
            services = services_of(room, publications)
            await _run(data, room, services, sock, stopping, ready)
        finally:
            room.store.close()


async def _run(
    data: DataDir,
    room: Room,
    services: Services,
    sock: socket.socket,
    stopping: asyncio.Event,
    ready: Callable[[Ready], None],
) -> None:
    broker = None
    if room.config.broker is None:
        broker = Mosquitto(
            data, fleet=room.fleet, listen=room.config.mqtt_listen, port=room.mqtt_port
        )
        await asyncio.to_thread(services.enrolment.certificates.write_list)
        await broker.start()
        room.restart_broker = broker.restarter(asyncio.get_running_loop())
    link = GmqttLink(_endpoint(data, room), fleet=room.fleet)
    room.link = link
    connected = asyncio.Event()

    def on_connected() -> None:
        services.publications.tell_all()
        services.publications.tell_time()
        services.deployments.publish_all()
        services.commands.publish_open()
        loop.call_soon_threadsafe(connected.set)

    loop = asyncio.get_running_loop()
    tls = await asyncio.to_thread(ServerTls.of, room)
    server = _Server(_http(services, tls))
    tasks = [
        asyncio.create_task(
            link.run(take=services.ingest.take, connected=on_connected, asked=services.blobs.ask)
        ),
        asyncio.create_task(server.serve(sockets=[sock])),
        asyncio.create_task(services.blobs.run(link.send)),
        asyncio.create_task(_renew(services, tls)),
        asyncio.create_task(_tell_time(services)),
        asyncio.create_task(_tick(services)),
        asyncio.create_task(_stay_watched()),
        asyncio.create_task(services.deltas.run()),
        asyncio.create_task(services.webhooks.run()),
    ]
    if broker is not None:
        tasks.append(asyncio.create_task(broker.keep()))
    waiting = asyncio.create_task(_say_ready(data, room, server, connected, ready))
    stop = asyncio.create_task(stopping.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # one that died takes the process with it
    finally:
        notify("STOPPING=1")
        room.changes.close()
        server.should_exit = True
        await asyncio.wait([tasks[1]], timeout=5)
        for task in (*tasks, waiting, stop):
            task.cancel()
        await asyncio.wait([*tasks, waiting, stop], timeout=10)


async def _say_ready(
    data: DataDir,
    room: Room,
    server: _Server,
    connected: asyncio.Event,
    ready: Callable[[Ready], None],
) -> None:
    await connected.wait()
    await server.is_up.wait()
    notify("READY=1")
    page = f"{room.base_url}/?token={data.read_token()}"
    ready(Ready(room.base_url, page, room.mqtt_host, room.mqtt_port))


async def _tick(services: Services) -> None:
    """Let time go on for rollouts: when one of them waits for it, and soon after a change."""
    clock, next_at = services.room.clock, 0.0
    async for change in services.room.changes.watch(every_s=_TICK_S):
        if change is not None and change.noun == "rollout":
            next_at = min(next_at, clock() + _TICK_S)  # many come together: one look is enough
        if clock() >= next_at:
            due = await asyncio.to_thread(services.deployments.tick)
            next_at = min(clock() + _TICK_EVERY_S, max(due, clock() + _TICK_S) if due else math.inf)


async def _tell_time(services: Services) -> None:
    while True:
        await asyncio.sleep(_TIME_EVERY_S)
        await asyncio.to_thread(services.publications.tell_time)


async def _renew(services: Services, tls: ServerTls | None) -> None:
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        if tls is not None:
            tls.reload()
        await asyncio.to_thread(services.publications.keep_fresh)
        await asyncio.to_thread(services.deployments.renew)


async def _stay_watched() -> None:
    """Tell systemd's watchdog, where there is one, twice an interval that the loop is alive."""
    every_s = int(os.environ.get("WATCHDOG_USEC") or 0) / 2e6
    while True:
        await asyncio.sleep(every_s or _RENEW_EVERY_S)
        notify("WATCHDOG=1")


def _http(services: Services, tls: ServerTls | None) -> uvicorn.Config:
    config = uvicorn.Config(
        create_app(services),
        http=Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    config.load()
    config.ssl = tls.context if tls is not None else None
    return config


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (the process has its own), and an event when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        self.is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


@contextlib.contextmanager
def _bound(config: Config) -> Iterator[socket.socket]:
    host, port = config.listen_address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise OperatorError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="stop what listens there, or choose another with --listen",
        ) from None
    with sock:
        yield sock


def _with_mqtt_port(config: Config) -> Config:
    if config.mqtt_port or config.broker is not None:
        return config
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return dataclasses.replace(config, mqtt_port=probe.getsockname()[1])


def _endpoint(data: DataDir, room: Room) -> Endpoint:
    external = room.config.broker
    if external is not None:
        host, port = external.address
        return Endpoint(host, port, Path(external.cafile), Path(external.cert), Path(external.key))
    listen = room.config.mqtt_listen
    host = "127.0.0.1" if listen in ("", "0.0.0.0", "::") else listen  # noqa: S104 - compared with
    keys = data.keys
    return Endpoint(
        host, room.mqtt_port, keys / "ca.pem", keys / "service.crt", keys / "service.key"
    )


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)) where it asked to be told; nothing elsewhere."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError as error:
            log.warning("cannot notify systemd: %s", error)
