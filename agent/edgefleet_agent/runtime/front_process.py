"""The agent's hold on the front: started, told its routes, restarted when it dies.

Tables are numbered; `in_force` waits until the front says that a table of that number or a later
one holds, whichever front says it. A front that died has nothing outstanding, so whoever waits
for a worker to drain may go on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from edgefleet_agent.runtime.drift_watch import DriftWatch
from edgefleet_agent.runtime.process import ChildProcess, finish, give_up, spawn, watched
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.counts import Counts, unpack_counts
from edgefleet_agent.serving.route import Route, ShadowRoute, Table, render_table
from edgefleet_contract import codec
from edgefleet_contract.errors import DeviceError
from edgefleet_contract.reasons import Reason

_log = logging.getLogger(__name__)

MODULE: Final = "edgefleet_agent.serving.front"
_START_S: Final = 30.0
_BACKOFF_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 10.0


class FrontProcess:
    """The front, and those that replace it.

    Args:
        config: passed on to it.
        listeners: bound and listening; owned by the caller.
        lan: the same, for the network.
        on_counts: called with a worker's id and what was counted since the last call.
        on_stuck: called with a worker's id and pid when it overran.
        on_measure: called with what the front says of measuring; None where it died.
    """

    def __init__(
        self,
        config: ServingConfig,
        listeners: list[socket.socket],
        *,
        lan: list[socket.socket],
        on_counts: Callable[[str, Counts], None],
        on_stuck: Callable[[str, int], None],
        on_measure: Callable[[dict[str, Any] | None], None] = lambda _: None,
    ) -> None:
        self._config, self._listeners, self._lan = config, listeners, lan
        self._on_counts, self._on_stuck = on_counts, on_stuck
        self._on_measure = on_measure
        self._table = Table(0, ())
        self._in_force = 0
        self._changed = asyncio.Condition()
        self._holding: set[str] = set()  # workers that the front may still wait for
        self._process: ChildProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._drift: dict[str, dict[str, object]] = {}
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the front that listens; None while there is none."""
        process = self._process  # once: other threads ask, too, while the loop replaces it
        return None if process is None else process.pid

    async def start(self) -> None:
        """Listen.

        Raises:
            DeviceError: it does not start; the message has its last words.
        """
        self._process = await self._launch()
        self._keeper = watched(asyncio.create_task(self._keep(), name="keeper of the front"))

    async def stop(self) -> None:
        """End it for good, also if cancelled meanwhile."""
        await finish(self._stop())

    async def _stop(self) -> None:
        if self._keeper is not None:
            await give_up(self._keeper)
        process, self._process = self._process, None
        if process is not None:
            await process.end()

    def route(self, routes: tuple[Route, ...], shadows: tuple[ShadowRoute, ...] = ()) -> int:
        """Send a table; its number."""
        self._table = Table(self._table.seq + 1, routes, shadows)
        self._holding |= {route.worker for route in routes}
        if self._process is not None:
            self._process.send(render_table(self._table))
        return self._table.seq

    def drift(self, worker: str, watch: DriftWatch) -> None:
        """Have a judgement shown beside the counts of a worker."""
        told = [codec.encode(one) for one in watch.judged]
        self._drift[worker] = {"drift": worker, "judged": told, "examples": watch.examples}
        if self._process is not None:
            self._process.send(self._drift[worker])

    def tell(self, message: dict[str, object]) -> None:
        """Send a message that is no table; lost where there is no front."""
        if self._process is not None:
            self._process.send(message)

    async def in_force(self, seq: int, *, timeout_s: float) -> bool:
        """Whether the table of this number, or a later one, came into force within this time."""
        return await self._until(lambda: self._in_force >= seq, timeout_s)

    async def drained(self, worker: str, *, timeout_s: float) -> bool:
        """Whether nothing is outstanding with a worker that lost its route, within this time."""
        return await self._until(lambda: worker not in self._holding, timeout_s)

    async def _until(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        async with self._changed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait_for(is_so)
            except TimeoutError:
                return False
        return True

    async def _keep(self) -> None:
        pause = _BACKOFF_S
        while True:
            assert self._process is not None
            process = self._process
            while (message := await process.receive()) is not None:
                pause = _BACKOFF_S
                await self._heard(message)
            process.kill()  # it hung up, so it is of no more use
            words = process.last_words(await process.wait())
            self._process = None
            self._on_measure(None)
            self.restarts += 1
            async with self._changed:
                self._holding = {route.worker for route in self._table.routes}
                self._changed.notify_all()
            _log.error("front: died, %s; restart in %g s", words, pause)
            while self._process is None:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_BACKOFF_S, pause * 2)
                try:
                    self._process = await self._launch()
                except DeviceError as error:
                    _log.error("front: %s", error)

    async def _launch(self) -> ChildProcess:
        inherited = {f"listen{i}": sock for i, sock in enumerate(self._listeners)}
        inherited |= {f"lan{i}": sock for i, sock in enumerate(self._lan)}
        try:
            process = await spawn(MODULE, "front", threads=1, sockets=inherited)
        except OSError as error:
            raise DeviceError(
                f"the front cannot be started: {error.strerror}", reason=Reason.INTERNAL
            ) from error
        try:
            process.send(codec.encode(self._config))
            sent = self._table
            process.send(render_table(sent))
            async with asyncio.timeout(_START_S):
                while (message := await process.receive()) is not None:
                    if "listening" in message:
                        break
                    await self._heard(message)
        except TimeoutError:
            message = None
        except BaseException:
            await process.put_down()
            raise
        if message is None:
            words = process.last_words(await process.put_down())
            raise DeviceError(f"the front does not start: {words}", reason=Reason.INTERNAL)
        if self._table is not sent:  # it changed meanwhile
            process.send(render_table(self._table))
        for judgement in self._drift.values():
            process.send(judgement)
        return process

    async def _heard(self, message: dict[str, Any]) -> None:
        match message:
            case {"routed": int(seq)}:
                async with self._changed:
                    self._in_force = seq
                    self._changed.notify_all()
            case {"drained": str(worker)}:
                self._drift.pop(worker, None)
                async with self._changed:
                    self._holding.discard(worker)
                    self._changed.notify_all()
            case {"stuck": str(worker), "pid": int(pid)}:
                self._on_stuck(worker, pid)
            case {"counts": dict(counts)}:
                for worker, value in counts.items():
                    self._on_counts(worker, unpack_counts(value))
            case {"measure": str()}:
                self._on_measure(message)
            case _:
                _log.warning("front: said %r", message)
