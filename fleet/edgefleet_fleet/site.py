"""A site: the fleets of one service, each kept running, and kept apart from the others.

Each fleet has its own room (data base, shelf, authority, keys, users, broker); they share a
process, an HTTP port and nothing else. A fleet that cannot start, or fails, is tried again with
back-off while the others go on; who asks for it is told 503. A site of one fleet is no site: what
ends that one ends the process, as whoever started it expects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from fastapi import FastAPI

from edgefleet_contract.errors import EdgefleetError, OperatorError, TransientError
from edgefleet_fleet import site_folder
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.roles import Role
from edgefleet_fleet.services import Services
from edgefleet_fleet.tls import ServerTls
from edgefleet_fleet.work import Actor

log = logging.getLogger("edgefleet.site")

FIRST_ADMIN: Final = "first-admin"
FIRST_DAYS: Final = 7
_BACKOFF: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
_UP_S: Final = 60.0
WHOSE: ContextVar[str] = ContextVar("fleet", default="")
"""The fleet that a log line is about; empty for the site's own."""


class State(StrEnum):
    """How a fleet of a site is."""

    STARTING = "starting"
    RUNNING = "running"
    TROUBLED = "troubled"


@dataclass(slots=True, eq=False)
class Fleet:
    """One fleet of a site; `name` is empty for the site's own. `why` says what is wrong."""

    name: str
    data: DataDir
    state: State = State.STARTING
    why: str = ""
    since: int = field(default_factory=lambda: int(time.time()))
    config: Config | None = None
    services: Services | None = None
    app: FastAPI | None = None
    task: asyncio.Task[None] | None = None
    is_leaving: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """It came up, or failed once."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """Its room is open, or failed once."""

    @property
    def prefix(self) -> str:
        """Where its HTTP is."""
        return site_folder.prefix_of(self.name) if self.name else ""

    def be(self, state: State, why: str = "") -> None:
        """Take note of how it is."""
        if state is not self.state:
            self.since = int(time.time())
        self.state, self.why = state, why
        if state is not State.STARTING:
            self.settled.set()
            self.opened.set()


Live = Callable[["Site", Fleet, Config], Awaitable[None]]
"""Runs a fleet until it is cancelled; raises when it cannot go on."""


class Site:
    """The fleets of one service. All methods are for the event loop."""

    def __init__(self, data: DataDir, config: Config, *, base_url: str, live: Live) -> None:
        self._data, self.config, self._live = data, config, live
        self.base_url = base_url
        self._tls: ServerTls | None = None
        self.own = Fleet("", data, config=config)
        self.others: dict[str, Fleet] = {
            name: Fleet(name, site_folder.fleet_dir(data, name)) for name in site_folder.names(data)
        }
        self._changing = asyncio.Lock()

    @property
    def fleets(self) -> tuple[Fleet, ...]:
        """Its own fleet and the others."""
        return (self.own, *self.others.values())

    def begin(self) -> asyncio.Task[None]:
        """Start them all; the task ends when the whole service must."""
        for fleet in self.fleets:
            self._begin(fleet)
        assert self.own.task is not None
        return self.own.task

    def open(self, fleet: Fleet, services: Services, app: FastAPI) -> None:
        """A fleet's room is open: requests for it may be answered."""
        fleet.services, fleet.app = services, app
        self._believe(fleet)
        fleet.opened.set()

    def use(self, tls: ServerTls | None) -> None:
        """Let the port believe the authority of each fleet, now and of those to come."""
        self._tls = tls
        for fleet in self.fleets:
            self._believe(fleet)

    def hush(self) -> None:
        """End every stream of changes, so that connections close."""
        for fleet in self.fleets:
            self._hush(fleet)

    async def end(self) -> None:
        """Take all fleets down."""
        tasks = [fleet.task for fleet in self.fleets if fleet.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=15)

    def counts(self) -> dict[str, int]:
        """How many of the other fleets are in which state; empty where there are none."""
        states = [fleet.state for fleet in self.others.values()]
        return {state.value: states.count(state) for state in State} if states else {}

    def views(self) -> list[dict[str, Any]]:
        """The other fleets by name, as the API shows them."""
        return [self.view(fleet) for _, fleet in sorted(self.others.items())]

    def view(self, fleet: Fleet) -> dict[str, Any]:
        """One of them."""
        config = fleet.config
        broker = config.broker.address[1] if config and config.broker else None
        return {
            "name": fleet.name,
            "state": fleet.state,
            "why": fleet.why,
            "since": fleet.since,
            "url": self.base_url + fleet.prefix,
            "mqtt_host": config.broker_host() if config else None,
            "mqtt_port": broker or (config.mqtt_port if config else None),
        }

    async def add(
        self, name: str, *, mqtt_port: int | None, actor: Actor
    ) -> tuple[dict[str, Any], str]:
        """Make a fleet and start it; how it is, and the token of its first admin.

        Raises:
            OperatorError: no fleet can be called that, or it does not start; then nothing is left.
            Conflict: the name or the port is taken.
        """
        async with self._changing:
            data = site_folder.fleet_dir(self._data, name)
            if data.root.exists() or name == self._own_name():
                raise Conflict(
                    f"there is a fleet {name!r}",
                    hint="one that was restored into its folder starts with the service",
                )
            ports = {f.config.mqtt_port for f in self.fleets if f.config is not None}
            if mqtt_port in ports:
                raise Conflict(f"another fleet's broker has the port {mqtt_port}")
            port = mqtt_port
            if port is None:
                port = await asyncio.to_thread(site_folder.free_port, self.config.mqtt_port, ports)
            await asyncio.to_thread(site_folder.make, data, mqtt_port=port)
            fleet = self.others[name] = Fleet(name, data)
            self._begin(fleet)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_UP_S):
                    await fleet.settled.wait()
            if fleet.services is None or fleet.state is not State.RUNNING:
                await self._forget(fleet)
                await asyncio.to_thread(site_folder.unmake, data)
                raise OperatorError(f"fleet {name!r} does not start: {fleet.why or 'no answer'}")
            users, threads = fleet.services.access.users, fleet.services.room.threads
            _, token = await threads.run(
                users.add, FIRST_ADMIN, Role.ADMIN, days=FIRST_DAYS, actor=actor
            )
            await self._record(actor, "fleet.add", name, f"broker on port {port}")
            return self.view(fleet), token

    async def remove(self, name: str, *, actor: Actor) -> str:
        """Stop a fleet and take it out of the list; where its data lies.

        Raises:
            NotFound: there is no such fleet.
            OperatorError: its data cannot be set aside; it runs on.
        """
        async with self._changing:
            fleet = self.others.get(name)
            if fleet is None:
                raise NotFound(f"there is no fleet {name[:80]!r}")
            self._hush(fleet)
            await self._forget(fleet)
            try:
                place = await asyncio.to_thread(site_folder.set_aside, fleet.data, fleet.config)
            except BaseException:
                again = self.others[name] = Fleet(name, fleet.data)
                self._begin(again)
                raise
            await self._record(actor, "fleet.remove", name, str(place))
            return str(place)

    def _believe(self, fleet: Fleet) -> None:
        if self._tls is not None and fleet.services is not None:
            self._tls.believe(fleet.services.room.authority.pem)

    def _hush(self, fleet: Fleet) -> None:
        fleet.is_leaving = True
        if fleet.services is not None:
            fleet.services.room.changes.close()

    def _begin(self, fleet: Fleet) -> None:
        fleet.task = asyncio.create_task(self._keep(fleet))

    async def _forget(self, fleet: Fleet) -> None:
        self.others.pop(fleet.name, None)
        assert fleet.task is not None
        fleet.task.cancel()
        await asyncio.wait([fleet.task], timeout=15)

    async def _keep(self, fleet: Fleet) -> None:
        """Run a fleet, and again when it fails; ends by being cancelled, or with a fleet alone."""
        WHOSE.set(fleet.name)
        failures = 0
        while True:
            try:
                config = self.config
                if fleet.name:
                    make = site_folder.config_of
                    config = await asyncio.to_thread(
                        make, fleet.data, self.config, base_url=self.base_url
                    )
                fleet.config = config
                await self._live(self, fleet, config)
            except Exception as error:
                if fleet is self.own and not self.others:
                    raise
                why = error.message if isinstance(error, EdgefleetError) else repr(error)[:200]
            else:
                why = "it ended"
            finally:
                fleet.app = fleet.services = None
            if fleet.is_leaving:
                return
            failures = 0 if fleet.state is State.RUNNING else failures
            wait_s, failures = _BACKOFF[min(failures, len(_BACKOFF) - 1)], failures + 1
            fleet.be(State.TROUBLED, why)
            log.error("fleet %s: %s; the others go on", fleet.name or "of the site", why)
            await asyncio.sleep(wait_s)

    def _own_name(self) -> str:
        return self.own.services.room.fleet if self.own.services is not None else ""

    async def _record(self, actor: Actor, what: str, name: str, detail: str) -> None:
        services = self.own.services
        if services is None:  # who asked was let in by it
            raise TransientError("the service is being stopped", hint="see fleet fleets list then")

        def record() -> None:
            with services.room.work(actor) as work:
                work.record(what, name, detail)

        await services.room.threads.run(record)


class NamesTheFleet(logging.Filter):
    """Puts the fleet of a site that a line is about behind the logger's name."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        if WHOSE.get() and not record.name.endswith("]"):
            record.name = f"{record.name}[{WHOSE.get()}]"
        return True
