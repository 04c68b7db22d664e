"""The candidates that run in shadow now: their processes, and the routes that copies take.

A route lasts as long as its candidate. It names the worker that is watched, so copies end where
that version leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from edgefleet_agent.ports import Failed, ModelSpec, ShadowReport
from edgefleet_agent.runtime.shadow_process import ShadowProcess
from edgefleet_agent.runtime.workshop import Workshop
from edgefleet_agent.serving.counts import Counts
from edgefleet_agent.serving.route import ShadowRoute


class Shadows:
    """Runs candidates. `changed` is called when `routes` are others than before."""

    def __init__(self, workshop: Workshop, changed: Callable[[], object]) -> None:
        self._workshop, self._changed = workshop, changed
        self._running: dict[ShadowRoute, ShadowProcess] = {}

    @property
    def routes(self) -> tuple[ShadowRoute, ...]:
        """What the front is to copy, and where to."""
        return tuple(self._running)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the candidates that are loaded."""
        pids = [shadow.pid for shadow in tuple(self._running.values())]  # also for other threads
        return tuple(pid for pid in pids if pid is not None)

    def overran(self, worker: str, pid: int) -> None:
        """The front waited for a candidate's answer for too long."""
        for route, shadow in self._running.items():
            if route.worker == worker:
                shadow.overran(pid)

    async def run(
        self,
        spec: ModelSpec,
        watched: str,
        counts: Counts,
        *,
        seconds: float,
        share: float,
        min_requests: int,
        max_cpu_share: float,
    ) -> ShadowReport | Failed:
        """See `ModelHost.shadow`; `counts` are those of the worker that is watched."""
        async with self._workshop.shadow(spec) as shadow:
            outcome = await shadow.start(max_cpu_share=max_cpu_share)
            if outcome is not None:
                return outcome
            route = ShadowRoute(watched, shadow.id, str(shadow.path), share)
            before, begun = counts.requests, time.monotonic()
            self._running[route] = shadow
            self._changed()
            try:
                outcome = await shadow.watch(seconds)
            finally:
                del self._running[route]
                self._changed()
            if isinstance(outcome, Failed):
                return outcome
            return replace(
                outcome,
                served=counts.requests - before,
                seconds=round(time.monotonic() - begun, 3),
                enough=outcome.requests >= min_requests,
            )
