"""The front's table of routes: one step from the old to the new, and the draining of what left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edgefleet_agent.runtime.frames import Copy
from edgefleet_agent.serving.cache import Cache
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.counts import Counts, pack_counts
from edgefleet_agent.serving.drift import Drift
from edgefleet_agent.serving.link import Link
from edgefleet_agent.serving.route import Route, ShadowRoute, Table
from edgefleet_agent.serving.shadow import Shadow

_FLUSH_S: Final = 0.05
_CONNECT_S: Final = 2.0
_CANARY_PART: Final = 0.5
"""Of the deadline: in the rest the stable version answers what a canary did not."""


@dataclass(slots=True, eq=False)
class Entry:
    """A route in use: its worker's link, and the counts since this front began.

    `unsent` is what the agent has not been told yet. `cache` is None where answers are not kept,
    `drift` while there is no judgement.
    """

    route: Route
    link: Link
    cache: Cache | None = None
    counts: Counts = field(default_factory=Counts)
    unsent: Counts = field(default_factory=Counts)
    drift: Drift | None = None


class Router:
    """Obeys the agent's tables. `tell` sends it a message."""

    def __init__(self, config: ServingConfig, tell: Callable[[dict[str, object]], None]) -> None:
        self._config, self._tell = config, tell
        self._entries: dict[str, Entry] = {}  # by worker, as the table has them
        self._leaving: set[Entry] = set()
        self._shadows: dict[str, Shadow] = {}  # by the worker that they watch
        self._flushing: asyncio.TimerHandle | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is routed now."""
        return tuple(self._entries.values())

    async def apply(self, table: Table) -> None:
        """Connect to what is new, change the routes in one step, let the rest drain."""
        known = self._entries
        entries = {
            route.worker: known.get(route.worker) or self._enter(route) for route in table.routes
        }
        fresh = [
            entry
            for entry in entries.values()
            if entry.route.worker not in known and not entry.route.is_coming
        ]
        await asyncio.gather(*(entry.link.wait_up(_CONNECT_S) for entry in fresh))
        self._entries = entries
        self._overshadow(table.shadows)
        self._tell({"routed": table.seq})
        for worker, entry in known.items():
            if worker not in entries:
                self._leaving.add(entry)
                entry.link.drain()

    def count(self, entry: Entry, status: int, microseconds: int, *, is_told: bool = True) -> None:
        """Count an answer; the agent hears of it within 50 ms, if it `is_told`."""
        entry.counts.count(status, microseconds)
        if not is_told:
            return
        entry.unsent.count(status, microseconds)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

    def drifted(self, worker: str, drift: Drift) -> None:
        """Show a judgement of the agent."""
        if worker in self._entries:
            self._entries[worker].drift = drift

    def copy(self, entry: Entry, copy: Copy) -> None:
        """Offer an answered request to the candidate that shadows this version, if there is one."""
        shadow = self._shadows.get(entry.route.worker)
        if shadow is not None:
            shadow.offer(copy)

    def flush(self) -> None:
        """Tell the agent what was counted since the last time."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        counts: dict[str, object] = {}
        for entry in (*self._entries.values(), *self._leaving):
            if entry.unsent.requests:
                counts[entry.route.worker] = pack_counts(entry.unsent)
                entry.unsent = Counts()
        if counts:
            self._tell({"counts": counts})

    def close(self) -> None:
        """Hang up on every worker."""
        self.flush()
        for entry in (*self._entries.values(), *self._leaving):
            entry.link.close()
        self._overshadow(())

    def _overshadow(self, routes: tuple[ShadowRoute, ...]) -> None:
        known = {shadow.route: shadow for shadow in self._shadows.values()}
        for route in known.keys() - set(routes):
            known[route].close()
        self._shadows = {route.watched: known.get(route) or self._shadow(route) for route in routes}

    def _shadow(self, route: ShadowRoute) -> Shadow:
        link = Link(
            route.path,
            limit=1,
            deadline_s=self._config.deadline_s,
            on_stuck=self._says_stuck(route.worker),
            on_idle=lambda: None,
        )
        return Shadow(route, link)

    def _says_stuck(self, worker: str) -> Callable[[int], None]:
        return lambda pid: self._tell({"stuck": worker, "pid": pid})

    def _enter(self, route: Route) -> Entry:
        def idle() -> None:
            # After the answer's own task, which still has to count it.
            loop.call_soon(self._leave, entry)

        loop = asyncio.get_running_loop()
        model = self._config.model(route.slot)
        link = Link(
            route.path,
            limit=self._config.queue,
            deadline_s=self._config.deadline_s * (_CANARY_PART if route.is_canary else 1),
            on_stuck=self._says_stuck(route.worker),
            on_idle=idle,
            asks_again=not route.is_canary,
            together=1 if route.is_stateful else model.max_batch,
        )
        is_kept = model.cache_mib and not route.is_stateful
        entry = Entry(route, link, Cache(model.cache_mib * 2**20) if is_kept else None)
        return entry

    def _leave(self, entry: Entry) -> None:
        self.flush()
        self._leaving.discard(entry)
        entry.link.close()
        self._tell({"drained": entry.route.worker})
