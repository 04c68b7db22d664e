"""The candidates that answer a share of the live requests now: their workers, routes and counts.

A candidate's worker is like any other: it has the priority of those that serve, since clients wait
for it. Its route stands in the table where its slot serves, whatever is swapped there meanwhile. A
canary ends in this order: its route goes, what it was asked is answered, its worker ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import psutil

from edgefleet_agent.ports import CanaryReport, Failed
from edgefleet_agent.runtime.front_process import FrontProcess
from edgefleet_agent.runtime.process import finish
from edgefleet_agent.runtime.worker_process import WorkerProcess
from edgefleet_agent.serving.counts import Counts
from edgefleet_agent.serving.route import Route
from edgefleet_contract.reasons import Reason

_log = logging.getLogger(__name__)

_LOOK_S: Final = 0.05
_ROUTE_S: Final = 30.0

Send: TypeAlias = Callable[[], int]


@dataclass(slots=True, eq=False)
class _Canary:
    """One candidate: its worker and route, and what it and what serves in its slot counted."""

    worker: WorkerProcess
    route: Route
    is_routed: bool = False
    counts: Counts = field(default_factory=Counts)
    serving: Counts = field(default_factory=Counts)


class Canaries:
    """Runs candidates. `send` sends the front a table with `routes` in it, and gives its number."""

    def __init__(self, send: Send, *, drain_s: float) -> None:
        self._send, self._drain_s = send, drain_s
        self._running: list[_Canary] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the candidates that are loaded."""
        pids = (canary.worker.pid for canary in self._running)
        return tuple(pid for pid in pids if pid is not None)

    def routes(self, serving: tuple[Route, ...]) -> tuple[Route, ...]:
        """What stands behind these routes in a table."""
        slots = {route.slot for route in serving}
        return tuple(
            canary.route
            for canary in self._running
            if canary.is_routed and canary.route.slot in slots
        )

    def counted(self, worker: str, counts: Counts) -> None:
        """The front counted this of a worker that may be a candidate's."""
        for canary in self._running:
            if canary.worker.id == worker:
                canary.counts.merge(counts)

    def served(self, slot: str, counts: Counts) -> None:
        """The front counted this of what serves in a slot."""
        for canary in self._running:
            if canary.route.slot == slot:
                canary.serving.merge(counts)

    def overran(self, worker: str, pid: int) -> None:
        """The front waited for a candidate's answer for too long."""
        for canary in self._running:
            if canary.worker.id == worker:
                canary.worker.kill(pid)

    async def run(
        self,
        worker: WorkerProcess,
        route: Route,
        front: FrontProcess,
        *,
        serves: Callable[[], bool],
        seconds: float,
        min_requests: int,
        max_failures: int,
    ) -> CanaryReport | Failed:
        """See `ModelHost.canary`.

        Args:
            worker: the candidate's, not started yet.
            route: where the front finds it, and its share.
            front: what is told the routes.
            serves: whether the slot serves; the canary ends where it does not.
            seconds, min_requests, max_failures: see `ModelHost.canary`.
        """
        canary = _Canary(worker, route)
        try:
            failed = await worker.start()
            if failed is not None:
                return failed
            self._running.append(canary)
            canary.is_routed = True
            if not await front.in_force(self._send(), timeout_s=_ROUTE_S):
                return Failed(Reason.INTERNAL, "the front did not take the route of a canary")
            canary.serving = Counts()
            took = await _watch(canary, seconds, max_failures, serves)
        finally:
            # To its end even if canceled: else a worker would be left without an owner.
            await finish(self._end(canary, front))
        if worker.restarts:
            return Failed(Reason.CANARY_FAILED, "its worker died")
        return _report(canary, seconds=took, min_requests=min_requests)

    async def _end(self, canary: _Canary, front: FrontProcess) -> None:
        if canary.is_routed:
            canary.is_routed = False
            seq = self._send()
            # 0: there is no front any more, and so nobody who would ask it.
            if seq and await front.in_force(seq, timeout_s=_ROUTE_S):
                name = f"{canary.route.model}@{canary.route.version}"
                if not await front.drained(canary.worker.id, timeout_s=self._drain_s):
                    _log.warning("%s: not drained in time", name)
        if canary in self._running:
            self._running.remove(canary)
        await canary.worker.stop()


async def _watch(
    canary: _Canary, seconds: float, max_failures: int, serves: Callable[[], bool]
) -> float:
    """How long it answered, s, when its time is over or it has failed."""
    begun = time.monotonic()
    while True:
        took = time.monotonic() - begun
        has_failed = canary.worker.restarts > 0 or canary.counts.failures > max_failures
        if took >= seconds or has_failed or not serves():
            return took
        await asyncio.sleep(_LOOK_S)


def has_room(serving: WorkerProcess, ram_mib: int) -> bool:
    """Whether the memory that is free is enough for a candidate of so many MiB.

    Where that is not known (0), it is taken to need as much as the worker that serves.
    """
    needed = ram_mib * 2**20 or serving.rss_bytes
    return bool(psutil.virtual_memory().available >= needed)


def _report(canary: _Canary, *, seconds: float, min_requests: int) -> CanaryReport:
    counts, serving = canary.counts, canary.serving
    return CanaryReport(
        requests=counts.requests,
        failures=counts.failures,
        serving_requests=serving.requests,
        serving_failures=serving.failures,
        serving_p50_us=serving.latencies.quantile(0.5),
        serving_p95_us=serving.latencies.quantile(0.95),
        candidate_p50_us=counts.latencies.quantile(0.5),
        candidate_p95_us=counts.latencies.quantile(0.95),
        share=canary.route.share,
        seconds=round(seconds, 3),
        enough=counts.requests >= min_requests,
    )
