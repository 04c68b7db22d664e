"""`fleet serve`: puts a control room together, runs it, takes it down.

Order: the data directory is locked, the HTTP port bound, the schema brought up to date, the
broker started, the link connected, and only then the service says that it is ready. The end goes
the other way: the port takes no more, streams of changes end, requests that run are finished for
some seconds, and only then the link, the broker and the data base are closed. A data base
that does not answer for a while is waited for. Any other end of a task takes its fleet with it: a
fleet alone the process, which whoever started it (systemd) starts again; one of several is started
again by the site (`site.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from edgefleet_contract.errors import OperatorError, TransientError
from edgefleet_fleet.adapters.mosquitto import Mosquitto
from edgefleet_fleet.adapters.mqtt_link import Endpoint, GmqttLink
from edgefleet_fleet.adapters.shelves import open_shelf
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.api import create_app
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.services import Services, services_of
from edgefleet_fleet.site import Fleet, Site, State
from edgefleet_fleet.site_app import SiteApp
from edgefleet_fleet.threads import Threads
from edgefleet_fleet.tls import Protocol, ServerTls
from edgefleet_fleet.users import Users, hash_token
from edgefleet_fleet.work import Room

log = logging.getLogger("edgefleet.serve")

_DEFAULT_NAME: Final = "fleet"
_TIME_EVERY_S: Final = 600
_RENEW_EVERY_S: Final = 6 * 3600
_SWEEP_AFTER_S: Final = 600
_TICK_EVERY_S: Final = 30.0
_TICK_S: Final = 0.5
_MAX_DELAY_S: Final = 15.0
_BUILDS: Final = threading.Lock()  # pydantic need not build models of two applications at once
_THREADS: Final = 16  # for what is the site's; a fleet has its own (`threads.py`)
_FINISH_S: Final = 6
_ENDS_S: Final = 10.0
_LEAVE_S: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a control room can be reached, once it can."""

    url: str
    page: str
    mqtt_host: str
    mqtt_port: int


def open_room(
    data: DataDir,
    config: Config,
    *,
    http_port: int,
    prefix: str = "",
    threads: Threads | None = None,
) -> Room:
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
        prefix=prefix,
        threads=threads or Threads(),
    )
    Users(room).keep_local_admin(hash_token(token))
    return room


async def serve(data: DataDir, config: Config, *, ready: Callable[[Ready], None]) -> None:
    """Run a control room, and the other fleets of its site, until SIGTERM or SIGINT.

    Raises:
        OperatorError: a port is taken, the broker is missing, the directory is in use.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.set_exception_handler(_complain)
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="fleet"))
    with data.locked(), _bound(config) as sock:
        base_url = config.base_url(sock.getsockname()[1])
        site = Site(data, _with_mqtt_port(config), base_url=base_url, live=_live)
        await _run(site, sock, stopping, ready)


def leave() -> None:
    """End the process, after `serve`, where threads still wait for something that hangs.

    Python would wait for them. What they are at was not acknowledged; it is as after a `kill -9`.
    """
    until = time.monotonic() + _LEAVE_S
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0.0, until - time.monotonic()))
    late = [thread.name for thread in others if thread.is_alive()]
    if late:
        log.warning("%d threads are left: they did not end in time", len(late))
        logging.shutdown()
        os._exit(0)


async def _run(
    site: Site, sock: socket.socket, stopping: asyncio.Event, ready: Callable[[Ready], None]
) -> None:
    own, stop = site.begin(), asyncio.create_task(stopping.wait())
    opened = asyncio.create_task(site.own.opened.wait())
    tasks = [own]
    server: _Server | None = None
    try:
        await asyncio.wait([own, stop, opened], return_when=asyncio.FIRST_COMPLETED)
        if own.done():
            own.result()
        if stop.done():
            return
        site.use(tls := await asyncio.to_thread(_tls, site))
        server = _Server(_http(site, tls))
        tasks += [
            asyncio.create_task(server.serve(sockets=[sock])),
            asyncio.create_task(_stay_watched()),
            asyncio.create_task(_reload(tls)),
            asyncio.create_task(_say_ready(site, server, ready)),
        ]
        waits = [*tasks[:-1], stop]
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # one that died takes the process with it
    finally:
        notify("STOPPING=1")
        site.hush()
        if server is not None:
            server.should_exit = True
            await asyncio.wait([tasks[1]], timeout=_FINISH_S + 2)
        await site.end()
        for task in (*tasks, opened, stop):
            task.cancel()
        await asyncio.wait([*tasks, opened, stop], timeout=10)


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the loop has to say, but not of gmqtt's callbacks for messages that are given up."""
    if not isinstance(context.get("exception"), asyncio.CancelledError):
        loop.default_exception_handler(context)


def _tls(site: Site) -> ServerTls | None:
    """What the port shows, also where the site's own data base does not open."""
    data = site.own.data
    return ServerTls.of_port(data, site.config, data.authority(), base_url=site.base_url)


async def _live(site: Site, fleet: Fleet, config: Config) -> None:
    """One fleet, from its data directory to its broker, until it is cancelled or cannot go on."""
    loop = asyncio.get_running_loop()
    with contextlib.nullcontext() if fleet is site.own else fleet.data.locked():
        threads = Threads(f"fleet-{fleet.name}" if fleet.name else "fleet")
        room: Room | None = None

        def open_mine() -> Room:
            nonlocal room
            port = urlsplit(site.base_url).port or 0
            room = open_room(
                fleet.data, config, http_port=port, prefix=fleet.prefix, threads=threads
            )
            return room

        try:
            opened = await threads.run(open_mine)
            opened.changes.attach(loop)
            publications = await threads.run(Publications.open, opened)
            services = services_of(opened, publications)
            if fleet is site.own:
                services = dataclasses.replace(services, site=site)
            app = await threads.run(_build, services)  # the other fleets need not wait
            site.open(fleet, services, app)
            await _tend(fleet, services)
        finally:
            fleet.app = None  # no request begins any more
            if room is not None:
                room.changes.close()
            await threads.close(patience_s=_ENDS_S)  # what is begun ends before its store does
            if room is not None:
                room.store.close()


def _build(services: Services) -> FastAPI:
    with _BUILDS:
        return create_app(services)


async def _tend(fleet: Fleet, services: Services) -> None:
    """A fleet's broker, the link to it, and all that goes on by itself."""
    room, loop = services.room, asyncio.get_running_loop()
    broker = None
    tasks: list[asyncio.Task[None]] = []
    try:
        if room.config.broker is None:
            broker = Mosquitto(
                fleet.data, fleet=room.fleet, listen=room.config.mqtt_listen, port=room.mqtt_port
            )
            await room.threads.run(services.enrolment.certificates.write_list)
            await broker.start()
            room.restart_broker = broker.restarter(loop)
        link = GmqttLink(_endpoint(fleet.data, room), fleet=room.fleet, threads=room.threads)
        room.link = link

        def on_connected() -> None:
            services.publications.tell_all()
            services.publications.tell_time()
            services.deployments.upkeep.publish_all()
            services.commands.publish_open()
            loop.call_soon_threadsafe(fleet.be, State.RUNNING)

        run = link.run(take=services.ingest.take, connected=on_connected, asked=services.blobs.ask)
        tasks = [
            asyncio.create_task(run),
            asyncio.create_task(services.blobs.run(link.send)),
            asyncio.create_task(_renew(services)),
            asyncio.create_task(_sweep(services)),
            asyncio.create_task(_tell_time(services)),
            asyncio.create_task(_tick(services)),
            asyncio.create_task(services.deltas.run()),
            asyncio.create_task(services.webhooks.run()),
        ]
        if broker is not None:
            tasks.append(asyncio.create_task(broker.keep()))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=10)
        if broker is not None:
            await broker.stop()  # a task that never began could not


async def _say_ready(site: Site, server: _Server, ready: Callable[[Ready], None]) -> None:
    await site.own.settled.wait()
    await server.is_up.wait()
    notify("READY=1")
    page = f"{site.base_url}/?token={site.own.data.read_token()}"
    config = site.config
    port = config.broker.address[1] if config.broker else config.mqtt_port
    ready(Ready(site.base_url, page, config.broker_host(), port))


async def _tick(services: Services) -> None:
    """Let time go on for rollouts: when one of them waits for it, and soon after a change."""
    clock, next_at = services.room.clock, 0.0
    async for change in services.room.changes.watch(every_s=_TICK_S):
        if change is not None and change.noun == "rollout":
            next_at = min(next_at, clock() + _TICK_S)  # many come together: one look is enough
        if clock() >= next_at:
            due = await _patiently(services, services.deployments.tick)
            next_at = min(clock() + _TICK_EVERY_S, max(due, clock() + _TICK_S) if due else math.inf)


async def _patiently(services: Services, act: Callable[[], T]) -> T:
    """What it gives; tried again while the data base does not answer."""
    for failures in itertools.count(1):
        try:
            return await services.room.threads.run(act)
        except TransientError as error:
            log.warning("%s waits: %s", getattr(act, "__name__", "it"), error.message)
            await asyncio.sleep(min(_MAX_DELAY_S, 0.2 * 2**failures))
    raise AssertionError("nobody counts that far")


async def _tell_time(services: Services) -> None:
    while True:
        await asyncio.sleep(_TIME_EVERY_S)
        await _patiently(services, services.publications.tell_time)


async def _reload(tls: ServerTls | None) -> None:
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        if tls is not None:
            tls.reload()


async def _renew(services: Services) -> None:
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        await _patiently(services, services.publications.keep_fresh)
        await _patiently(services, services.deployments.upkeep.renew)


async def _sweep(services: Services) -> None:
    """Take away what nobody names: soon, and again and again."""
    await asyncio.sleep(_SWEEP_AFTER_S)
    while True:
        if await _patiently(services, services.leftovers.sweep):
            await _patiently(services, services.deltas.tidy)
        await asyncio.sleep(_RENEW_EVERY_S)


async def _stay_watched() -> None:
    """Tell systemd's watchdog, where there is one, twice an interval that the loop is alive."""
    every_s = int(os.environ.get("WATCHDOG_USEC") or 0) / 2e6
    while True:
        await asyncio.sleep(every_s or _RENEW_EVERY_S)
        notify("WATCHDOG=1")


def _http(site: Site, tls: ServerTls | None) -> uvicorn.Config:
    config = uvicorn.Config(
        SiteApp(site),
        http=Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_FINISH_S,
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
