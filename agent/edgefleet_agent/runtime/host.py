"""Runs models in processes of their own, and changes them under load: the agent's `ModelHost`.

    agent (this process) ── JSON lines ──▶ front ── frames ──▶ worker of digits@7
                         ── JSON lines ──▶ worker of digits@7
                         ── JSON lines ──▶ trial of digits@8

A swap starts and warms the new workers, changes the routes in one step, and lets the old workers
finish what they have. Whatever fails before the step leaves the old ones serving, untouched.
It does not judge a version that serves: that is the install machine's, on `stats`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from edgefleet_agent.ports import (
    CanaryReport,
    Failed,
    ModelSpec,
    ShadowReport,
    SlotStats,
    TrialReport,
)
from edgefleet_agent.runtime.canaries import Canaries, has_room
from edgefleet_agent.runtime.chain import ON_THE_PROCESSOR, Accelerators, platform
from edgefleet_agent.runtime.front_process import FrontProcess
from edgefleet_agent.runtime.process import finish
from edgefleet_agent.runtime.shadows import Shadows
from edgefleet_agent.runtime.threads import ThreadWatch
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_agent.runtime.worker_process import WorkerProcess
from edgefleet_agent.runtime.zygote_process import ZygoteProcess
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.counts import Counts
from edgefleet_agent.serving.listener import bind, release, spell
from edgefleet_agent.serving.route import CANARY, Route
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.reasons import Reason

_log = logging.getLogger(__name__)

_ROUTE_S: Final = 30.0


@dataclass(slots=True, eq=False)
class _Served:
    """A slot that serves: its worker, and what was counted since it began."""

    spec: ModelSpec
    worker: WorkerProcess
    counts: Counts = field(default_factory=Counts)
    interval: Counts = field(default_factory=Counts)

    def route(self) -> Route:
        spec = self.spec
        return Route(
            slot=spec.slot,
            model=spec.model,
            version=spec.version,
            worker=self.worker.id,
            path=str(self.worker.path),
            inputs=spec.variant.inputs,
            outputs=spec.variant.outputs,
            platform=platform(spec.engine, spec.variant.format, self.worker.accelerator),
        )


class LocalHost:
    """A `ModelHost` on this machine: `async with LocalHost(config) as host: …`.

    One event loop owns it. `trial` may run beside everything else; `activate` and `deactivate`
    wait for each other.

    Args:
        config: of serving.
        zygote: whether workers, trials and shadows are forks, where that works.
        engines: the runtimes that forks have at hand; empty: all that are installed.
        accelerators: what models may run on; None: the runtimes as they come.
    """

    def __init__(
        self,
        config: ServingConfig,
        *,
        zygote: bool = True,
        engines: Iterable[str] = (),
        accelerators: Accelerators | None = None,
    ) -> None:
        self._config = config
        self._accelerators = accelerators or Accelerators()
        self._proven: dict[str, tuple[ModelSpec, str]] = {}  # the last trial of each slot
        self._threads = ThreadWatch()
        self._served: dict[str, _Served] = {}
        self._zygote = ZygoteProcess(engines, threads=config.threads) if zygote else None
        self._shadows = Shadows(config, self._send_routes, self._zygote)
        self._canaries = Canaries(self._send_routes, drain_s=config.drain_s)
        self._swap = asyncio.Lock()
        self._listeners: list[socket.socket] = []
        self._front: FrontProcess | None = None
        self._folder: Path | None = None
        self._started_workers = 0

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where predictions are served: `unix:/path` or `host:port`, the real port."""
        return tuple(spell(sock) for sock in self._listeners)

    @property
    def front_pid(self) -> int | None:
        """The front's process; None while there is none."""
        return None if self._front is None else self._front.pid

    @property
    def zygote_pid(self) -> int | None:
        """The process that forks; None while there is none."""
        return None if self._zygote is None else self._zygote.pid

    @property
    def worker_pids(self) -> dict[str, int]:
        """The process of every slot that has one ready."""
        return {
            slot: served.worker.pid
            for slot, served in self._served.items()
            if served.worker.pid is not None
        }

    @property
    def shadow_pids(self) -> tuple[int, ...]:
        """The processes of the candidates that run in shadow."""
        return self._shadows.pids

    @property
    def canary_pids(self) -> tuple[int, ...]:
        """The processes of the candidates that answer a share of the requests."""
        return self._canaries.pids

    async def start(self) -> None:
        """Listen, with nothing served yet.

        Raises:
            OperatorError: an address is taken or not allowed; the hint says what to do.
            DeviceError: the front process does not start.
        """
        try:
            for address in self._config.listen:
                self._listeners.append(bind(address, open_to_network=self._config.open_to_network))
            self._folder = _make_folder(self._config.run_dir)
            front = FrontProcess(
                self._config,
                self._listeners,
                on_counts=self._counted,
                on_stuck=self._stuck,
            )
            if self._zygote is not None:
                self._zygote.start()  # beside the front
            await front.start()
        except BaseException:
            await self.close()
            raise
        self._front = front
        _log.info("serving on %s", ", ".join(self.addresses))

    async def close(self) -> None:
        """Stop serving: drain every model, end every process, free every address."""
        if self._front is not None:
            async with self._swap:
                await self._replace({}, {})
                front, self._front = self._front, None
            await front.stop()
        if self._zygote is not None:
            await self._zygote.stop()
        for sock in self._listeners:
            release(sock)
        self._listeners.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def __aenter__(self) -> LocalHost:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def trial(self, spec: ModelSpec, *, timeout_s: float) -> TrialReport | Failed:
        """See `ModelHost.trial`."""
        report = await try_model(
            spec,
            timeout_s=timeout_s,
            threads=self._config.model(spec.slot).threads,
            data_mib=self._config.trial_data_mib,
            accelerators=self._accelerators_for(spec),
            zygote=self._zygote,
        )
        if isinstance(report, TrialReport):
            self._proven[spec.slot] = spec, report.accelerator
        return report

    async def shadow(
        self,
        spec: ModelSpec,
        *,
        seconds: float,
        share: float,
        min_requests: int,
        max_cpu_share: float,
    ) -> ShadowReport | Failed:
        """See `ModelHost.shadow`. A swap of the slot ends the copies, not the shadow."""
        served = self._served.get(spec.slot)
        if served is None or self._folder is None:
            return ShadowReport(enough=min_requests <= 0)
        return await self._shadows.run(
            spec,
            served.worker.id,
            served.counts,
            folder=self._folder,
            accelerators=self._accelerators_for(spec),
            seconds=seconds,
            share=share,
            min_requests=min_requests,
            max_cpu_share=max_cpu_share,
        )

    async def canary(
        self,
        spec: ModelSpec,
        *,
        seconds: float,
        share: float,
        min_requests: int,
        max_failures: int,
    ) -> CanaryReport | Failed:
        """See `ModelHost.canary`. It stands beside whatever serves in the slot."""
        served = self._served.get(spec.slot)
        if served is None or self._front is None:
            return CanaryReport(enough=min_requests <= 0)
        if not has_room(served.worker, spec.limits.ram_mib if spec.limits else 0):
            _log.warning("%s@%d: no memory for a canary", spec.model, spec.version)
            return CanaryReport(enough=min_requests <= 0)
        candidate = self._prepare(spec)
        return await self._canaries.run(
            candidate.worker,
            replace(candidate.route(), label=CANARY, share=share),
            self._front,
            serves=lambda: spec.slot in self._served,
            seconds=seconds,
            min_requests=min_requests,
            max_failures=max_failures,
        )

    async def activate(self, specs: tuple[ModelSpec, ...]) -> Failed | None:
        """See `ModelHost.activate`. What already serves in its slot is left as it is."""
        async with self._swap:
            if self._front is None:
                return Failed(Reason.ACTIVATION_FAILED, "nothing is served: the host is closed")
            fresh = {spec.slot: self._prepare(spec) for spec in specs if not self._serves(spec)}
            if not fresh:
                return None
            before = self._served
            failed = await self._bring(fresh)
            if failed is None:
                self._threads.look(
                    {slot: self._config.model(slot).threads for slot in self._served}
                )
                freed = _freed(before, self._served)
                if again := {k: s for k, s in fresh.items() if freed & s.worker.passed_over_names}:
                    await self._bring({k: self._prepare_again(s) for k, s in again.items()})
            return failed

    async def _bring(self, fresh: dict[str, _Served]) -> Failed | None:
        """Start the workers of these, and change the routes to them; else leave none of them."""
        try:
            failed = await _start_all(fresh.values())
            after = {**self._served, **fresh}
            if failed is None and not await self._replace(after, fresh):
                failed = Failed(Reason.ACTIVATION_FAILED, "the front did not take the routes")
        except BaseException:
            await finish(_stop_all([s.worker for s in fresh.values() if not self._is_in(s)]))
            raise
        if failed is not None:
            await finish(_stop_all([served.worker for served in fresh.values()]))
        return failed

    async def deactivate(self, slot: str) -> None:
        """See `ModelHost.deactivate`."""
        async with self._swap:
            if slot in self._served:  # a closed host serves none
                rest = {k: s for k, s in self._served.items() if k != slot}
                await self._replace(rest, {})

    def stats(self, *, new_interval: bool = False) -> tuple[SlotStats, ...]:
        """See `ModelHost.stats`. The front's counts arrive here within about 50 ms."""
        found = tuple(self._stats(served) for served in self._served.values())
        if new_interval:
            for served in self._served.values():
                served.interval = Counts()
        return found

    def _stats(self, served: _Served) -> SlotStats:
        spec, worker, interval = served.spec, served.worker, served.interval
        return SlotStats(
            slot=spec.slot,
            model=spec.model,
            version=spec.version,
            variant=spec.variant.name,
            engine=spec.engine,
            ready=worker.pid is not None and self.front_pid is not None,
            requests=served.counts.requests,
            failures=served.counts.failures + worker.restarts,
            restarts=worker.restarts,
            interval_requests=interval.requests,
            latency_p50_us=interval.latencies.quantile(0.5),
            latency_p95_us=interval.latencies.quantile(0.95),
            worker_rss_bytes=worker.rss_bytes,
            accelerator=worker.accelerator,
            passed_over=worker.passed_over,
        )

    def _serves(self, spec: ModelSpec) -> bool:
        served = self._served.get(spec.slot)
        return served is not None and served.spec == spec and served.worker.pid is not None

    def _is_in(self, served: _Served) -> bool:
        return self._served.get(served.spec.slot) is served

    def _prepare(self, spec: ModelSpec) -> _Served:
        assert self._folder is not None, "the host is not started"
        self._started_workers += 1
        worker = WorkerProcess(
            f"w{self._started_workers}",
            spec,
            folder=self._folder,
            threads=self._config.model(spec.slot).threads,
            ready_s=self._config.ready_s,
            accelerators=self._accelerators_for(spec),
            zygote=self._zygote,
        )
        return _Served(spec, worker)

    def _prepare_again(self, served: _Served) -> _Served:
        """Another worker of what serves, which goes on with its counts."""
        return replace(served, worker=self._prepare(served.spec).worker)

    def _accelerators_for(self, spec: ModelSpec) -> Accelerators:
        tried, proven = self._proven.get(spec.slot, (None, ""))
        return replace(
            self._accelerators,
            named=self._config.model(spec.slot).accelerators or self._accelerators.named,
            proven=proven if tried == spec else "",
        )

    async def _replace(self, served: dict[str, _Served], fresh: dict[str, _Served]) -> bool:
        """Change the routes to `served` in one step, then drain and end what is not in it.

        False, with the old routes restored, if the front did not take them. It goes to its end
        even if cancelled: half a swap would leave a worker without an owner.
        """
        assert self._front is not None
        before, self._served = self._served, served
        seq = self._send_routes()
        return await finish(self._conclude(self._front, seq, before, fresh))

    async def _conclude(
        self, front: FrontProcess, seq: int, before: dict[str, _Served], fresh: dict[str, _Served]
    ) -> bool:
        if not await front.in_force(seq, timeout_s=_ROUTE_S) and fresh:
            self._served = before
            self._send_routes()
            return False
        leaving = [old.worker for slot, old in before.items() if self._served.get(slot) is not old]
        await asyncio.gather(*(self._drain(front, worker) for worker in leaving))
        await _stop_all(leaving)
        return True

    async def _drain(self, front: FrontProcess, worker: WorkerProcess) -> None:
        if not await front.drained(worker.id, timeout_s=self._config.drain_s):
            _log.warning("%s@%d: not drained in time", worker.spec.model, worker.spec.version)

    def _send_routes(self) -> int:
        """The number of the table; 0 where there is no front to tell."""
        if self._front is None:
            return 0
        routes = tuple(served.route() for served in self._served.values())
        return self._front.route((*routes, *self._canaries.routes(routes)), self._shadows.routes)

    def _counted(self, worker: str, counts: Counts) -> None:
        for served in self._served.values():
            if served.worker.id == worker:
                served.counts.merge(counts)
                served.interval.merge(counts)
                self._canaries.served(served.spec.slot, counts)
        self._canaries.counted(worker, counts)

    def _stuck(self, worker: str, pid: int) -> None:
        for served in self._served.values():
            if served.worker.id == worker:
                served.worker.kill(pid)
        self._shadows.overran(worker, pid)
        self._canaries.overran(worker, pid)


def _freed(before: dict[str, _Served], after: dict[str, _Served]) -> set[str]:
    """The accelerators of workers that left: some can be held by one process at a time."""
    return {
        old.worker.accelerator for slot, old in before.items() if after.get(slot) is not old
    } - ON_THE_PROCESSOR


async def _start_all(fresh: Iterable[_Served]) -> Failed | None:
    """None once every worker is ready, else the first failure."""
    fresh = tuple(fresh)
    outcomes = await asyncio.gather(*(served.worker.start() for served in fresh))
    for served, failed in zip(fresh, outcomes, strict=True):
        if failed is not None:
            spec = served.spec
            words = f"{spec.slot} {spec.model}@{spec.version}: {failed.reason}: {failed.detail}"
            return Failed(Reason.ACTIVATION_FAILED, words)
    return None


async def _stop_all(workers: Iterable[WorkerProcess]) -> None:
    await asyncio.gather(*(worker.stop() for worker in workers))


def _make_folder(run_dir: str) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="edgefleet-", dir=run_dir or None))
    except OSError as error:
        raise OperatorError(
            f"cannot make a folder in {run_dir or tempfile.gettempdir()}: {error.strerror}",
            hint="set serving.run_dir to a folder that the agent may write",
        ) from error
