"""Runs models in processes of their own, and changes them under load: the agent's `ModelHost`.

    agent (this process) ── JSON lines ──▶ front ── frames ──▶ worker of digits@7
                         ── JSON lines ──▶ worker of digits@7
                         ── JSON lines ──▶ trial of digits@8

`workshop` makes the processes, `swaps` changes what serves; here is what listens, and what is
counted. It does not judge a version that serves: that is the install machine's, on `stats`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from edgefleet_agent.ports import (
    CanaryReport,
    Failed,
    ModelSpec,
    ShadowReport,
    SlotStats,
    TrialReport,
)
from edgefleet_agent.runtime.canaries import Canaries
from edgefleet_agent.runtime.cgroups import Cgroups
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.front_process import FrontProcess
from edgefleet_agent.runtime.lan_keeper import keep_certificate, prepare_lan
from edgefleet_agent.runtime.measuring import Ability, measure
from edgefleet_agent.runtime.memory import available_bytes
from edgefleet_agent.runtime.precedence import Precedence
from edgefleet_agent.runtime.process import Forker, watched
from edgefleet_agent.runtime.shadows import Shadows
from edgefleet_agent.runtime.swaps import Swaps
from edgefleet_agent.runtime.threads import ThreadWatch
from edgefleet_agent.runtime.workshop import Served, Workshop
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.counts import Counts
from edgefleet_agent.serving.listener import bind, check_grpc, release, spell
from edgefleet_agent.serving.route import CANARY
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.measuring import MeasureJob, Result

_log = logging.getLogger(__name__)


class LocalHost:
    """A `ModelHost` on this machine: `async with LocalHost(config) as host: …`.

    One event loop owns it. `trial` may run beside everything else; `activate` and `deactivate`
    wait for each other.

    Args:
        config: of serving.
        zygote: whether workers, trials and shadows are forks, where that works.
        engines: the runtimes that forks have at hand; empty: all that are installed.
        accelerators: what models may run on; None: the runtimes as they come.
        groups: where children get control groups of their own.
        available: bytes of memory that can be had now.
    """

    def __init__(
        self,
        config: ServingConfig,
        *,
        zygote: bool = True,
        engines: Iterable[str] = (),
        accelerators: Accelerators | None = None,
        groups: Cgroups | None = None,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._config = config
        self._workshop = Workshop(
            config,
            zygote=zygote,
            engines=engines,
            accelerators=accelerators,
            groups=groups,
            available=available,
        )
        self._swaps = Swaps(self._workshop, self._send_routes, drain_s=config.drain_s)
        self._shadows = Shadows(self._workshop, self._send_routes)
        self._canaries = Canaries(self._send_routes, drain_s=config.drain_s)
        self._threads = ThreadWatch()
        self._workshop.tell_drift = self._drifted
        self._precedence = Precedence()
        self._on_measure: Callable[[dict[str, Any] | None], None] = lambda _: None
        self._listeners: list[socket.socket] = []
        self._lan: list[socket.socket] = []
        self._renewing: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where predictions are served: `unix:/path` or `host:port`, the real port."""
        return tuple(spell(sock) for sock in self._listeners)

    @property
    def lan_addresses(self) -> tuple[str, ...]:
        """Where predictions are served on the network: `https://host:port`."""
        return tuple(f"https://{spell(sock)}" for sock in self._lan)

    @property
    def front_pid(self) -> int | None:
        """The front's process; None while there is none."""
        front = self._swaps.front
        return None if front is None else front.pid

    @property
    def zygote_pid(self) -> int | None:
        """The process that forks; None while there is none."""
        return None if self._workshop.zygote is None else self._workshop.zygote.pid

    @property
    def forker(self) -> Forker | None:
        """Who forks children that have NumPy at hand; None where each is started as a program."""
        return self._workshop.zygote

    @property
    def worker_pids(self) -> dict[str, int]:
        """The process of every slot that has one ready."""
        return {
            slot: pid
            for slot, served in self._swaps.served.items()
            if (pid := served.worker.pid) is not None
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
            if self._config.grpc:
                check_grpc(self._config.grpc)
            if (lan := self._config.lan) is not None:
                await asyncio.to_thread(prepare_lan, lan)
                self._lan += [bind(address, open_to_network=True) for address in lan.listen]
                self._renewing = watched(asyncio.create_task(keep_certificate(lan)))
            self._workshop.folder = _make_folder(self._config.run_dir)
            front = FrontProcess(
                replace(self._config, run_dir=str(self._workshop.folder)),
                self._listeners,
                lan=self._lan,
                on_counts=self._counted,
                on_stuck=self._stuck,
                on_measure=lambda message: self._on_measure(message),
            )
            if self._workshop.zygote is not None:
                self._workshop.zygote.start()  # beside the front
            await front.start()
        except BaseException:
            await self.close()
            raise
        self._swaps.front = front
        _log.info("serving on %s", ", ".join(self.addresses + self.lan_addresses))

    async def close(self) -> None:
        """Stop serving: drain every model, end every process, free every address."""
        if (front := await self._swaps.end()) is not None:
            await front.stop()
        if (zygote := self._workshop.zygote) is not None:
            await zygote.stop()
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        for sock in (*self._listeners, *self._lan):
            release(sock)
        self._listeners.clear()
        self._lan.clear()
        if (folder := self._workshop.folder) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            self._workshop.folder = None

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
        async with self._precedence.first():
            return await self._swaps.trial(spec, timeout_s=timeout_s)

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
        served = self._swaps.served.get(spec.slot)
        if served is None:
            return ShadowReport(enough=min_requests <= 0)
        async with self._precedence.first():
            return await self._shadows.run(
                spec,
                served.worker.id,
                served.counts,
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
        served = self._swaps.served.get(spec.slot)
        front = self._swaps.front
        if served is None or front is None:
            return CanaryReport(enough=min_requests <= 0)
        if not self._workshop.fits((spec,)):
            _log.warning("%s@%d: no memory for a canary", spec.model, spec.version)
            return CanaryReport(enough=min_requests <= 0)
        candidate = self._workshop.serve(spec)
        async with self._precedence.first():
            return await self._canaries.run(
                candidate.worker,
                replace(candidate.route(), label=CANARY, share=share),
                front,
                serves=lambda: spec.slot in self._swaps.served,
                seconds=seconds,
                min_requests=min_requests,
                max_failures=max_failures,
            )

    async def activate(self, specs: tuple[ModelSpec, ...]) -> Failed | None:
        """See `ModelHost.activate`."""
        async with self._precedence.first():
            failed = await self._swaps.activate(specs)
        self._threads.look({slot: self._config.model(slot).threads for slot in self._swaps.served})
        return failed

    async def restart(self, slot: str) -> Failed | None:
        """Another worker in the place of the one that serves a slot, without a lost request."""
        return await self._swaps.restart(slot)

    async def deactivate(self, slot: str) -> None:
        """See `ModelHost.deactivate`."""
        await self._swaps.deactivate(slot)

    async def measure(
        self, job: MeasureJob, folder: Path, ability: Ability, *, within_s: float
    ) -> tuple[Result, ...]:
        """What candidates cost on this board; it gives way to every install.

        Raises:
            GaveWay: an install is under way, or began meanwhile, or another job is measured.
        """

        async def attempt(spec: ModelSpec, timeout_s: float) -> TrialReport | Failed:
            return await self._workshop.measure(
                spec,
                timeout_s=timeout_s,
                memory_mib=job.memory_mib,
                timing=(job.runs, float(job.seconds)),
            )

        return await self._precedence.last(
            lambda: measure(job, folder, ability, attempt, within_s=within_s)
        )

    @property
    def is_measuring(self) -> bool:
        """Whether candidates are measured now."""
        return self._precedence.is_last

    def on_measure(self, hear: Callable[[dict[str, Any] | None], None]) -> None:
        """Have `hear` called with what the front says of measuring; None where it died."""
        self._on_measure = hear

    def tell_front(self, message: dict[str, object]) -> None:
        """Send the front a message that is no table."""
        if self._swaps.front is not None:
            self._swaps.front.tell(message)

    @property
    def folder(self) -> Path:
        """What is in it goes with the host."""
        assert self._workshop.folder is not None, "the host is not started"
        return self._workshop.folder

    def on_crash_loop(self, tell: Callable[[ModelSpec, str], None]) -> None:
        """See `ModelHost.on_crash_loop`."""
        self._workshop.tell_loop = tell

    def stats(self, *, new_interval: bool = False) -> tuple[SlotStats, ...]:
        """See `ModelHost.stats`. The front's counts arrive here within about 50 ms."""
        found = tuple(
            self._stats(served, new_interval=new_interval) for served in self._swaps.served.values()
        )
        if new_interval:
            for served in self._swaps.served.values():
                served.interval = Counts()
        return found

    def _stats(self, served: Served, *, new_interval: bool) -> SlotStats:
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
            made_room=served.made_room,
            drift=worker.drift.take() if worker.drift is not None and new_interval else None,
        )

    def _send_routes(self) -> int:
        """The number of the table; 0 where there is no front to tell."""
        front = self._swaps.front
        if front is None:
            return 0
        routes = tuple(served.route() for served in self._swaps.served.values())
        return front.route((*routes, *self._canaries.routes(routes)), self._shadows.routes)

    def _counted(self, worker: str, counts: Counts) -> None:
        for served in self._swaps.served.values():
            if served.worker.id == worker:
                served.counts.merge(counts)
                served.interval.merge(counts)
                self._canaries.served(served.spec.slot, counts)
        self._canaries.counted(worker, counts)

    def _drifted(self, worker: str) -> None:
        """Have the front show it."""
        front = self._swaps.front
        for served in self._swaps.served.values():
            if served.worker.id == worker and front is not None and served.worker.drift is not None:
                front.drift(worker, served.worker.drift)

    def _stuck(self, worker: str, pid: int) -> None:
        for served in self._swaps.served.values():
            if served.worker.id == worker:
                served.worker.kill(pid)
        self._shadows.overran(worker, pid)
        self._canaries.overran(worker, pid)


def _make_folder(run_dir: str) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="edgefleet-", dir=run_dir or None))
    except OSError as error:
        raise OperatorError(
            f"cannot make a folder in {run_dir or tempfile.gettempdir()}: {error.strerror}",
            hint="set serving.run_dir to a folder that the agent may write",
        ) from error
