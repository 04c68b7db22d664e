"""Performs the long commands of the install machine: download, self-test, swap, watch, go back.

Each gives the event that it led to. Canceling one leaves nothing running behind it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from edgefleet_agent.bundles import Arrival, Bundles, Progress
from edgefleet_agent.device import (
    Activate,
    Activated,
    Command,
    Download,
    Downloaded,
    Event,
    Installed,
    Interrupted,
    Observe,
    ProbationPassed,
    Restore,
    RollbackFailed,
    RolledBack,
    SelfTest,
    ServeFailed,
    StepFailed,
    TrialPassed,
)
from edgefleet_agent.ports import Failed, ModelHost, Reporter
from edgefleet_contract.errors import DeviceError, PeerError, TransientError
from edgefleet_contract.messages import Order, Phase, RunningModel, Target
from edgefleet_contract.reasons import Reason

log = logging.getLogger(__name__)

WATCH_S: Final = 0.1
"""How often a model on probation is looked at."""
PROGRESS_S: Final = 10.0
PROGRESS_SHARE: Final = 0.05


class Performer:
    """The hands of one installer. `measured` gathers figures of the install at hand."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        host: ModelHost,
        reporter: Reporter,
        trial_timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._bundles = bundles
        self._host = host
        self._reporter = reporter
        self._trial_timeout_s = trial_timeout_s
        self._clock = clock
        self.measured: dict[str, float] = {}
        self.serving: dict[str, Installed] = {}

    @property
    def running(self) -> tuple[RunningModel, ...]:
        """The models that serve now, on probation or committed."""
        return tuple(
            RunningModel(
                slot,
                item.target.model,
                item.target.version,
                item.target.bundle_sha256,
                item.variant,
                item.engine,
            )
            for slot, item in sorted(self.serving.items())
        )

    async def perform(self, command: Command) -> Event:
        """What came of a long command: the event to feed back.

        Raises:
            EdgefleetError: it could not be carried out; the caller makes a `StepFailed` of it.
        """
        match command:
            case Download():
                return await self._download(command)
            case SelfTest(chosen):
                return await self._self_test(chosen)
            case Activate(chosen):
                return await self._activate(chosen)
            case Observe():
                return await self._observe(command)
            case Restore():
                return await self._restore(command)
        raise AssertionError(command)  # pragma: no cover - `_start` handles the others

    async def serve(self, item: Installed) -> ServeFailed | None:
        """Make a committed model serve; what is wrong where it does not."""
        try:
            failed = await self._host.activate((self._bundles.spec(item),))
        except (DeviceError, PeerError) as error:
            failed = Failed(error.reason, error.message)
        if failed is None:
            self.serving[item.target.slot] = item
            return None
        log.error("%s cannot be served: %s", item.target.slot, failed.detail)
        return ServeFailed(item.target.slot, failed.detail)

    async def settle(self, stop: tuple[str, ...], kept: tuple[Installed, ...]) -> None:
        """Stop slots, and collect what none of `kept` needs."""
        for slot in stop:
            await self._host.deactivate(slot)
            self.serving.pop(slot, None)
        try:
            await asyncio.to_thread(self._bundles.collect, kept)
        except OSError as error:
            log.warning("cannot collect garbage: %s", error.strerror)

    async def _download(self, command: Download) -> Event:
        await asyncio.sleep(command.delay_s)
        progress = self._progress_reporter(command.order)
        try:
            arrivals = [
                await self._bring(target, command.order, progress) for target in command.targets
            ]
        except TransientError as error:
            return Interrupted(error.message, int(self._clock()), random.random())
        self.measured["download_bytes"] = float(sum(item.transferred for item in arrivals))
        return Downloaded(tuple(item.installed for item in arrivals))

    async def _self_test(self, chosen: tuple[Installed, ...]) -> Event:
        for item in chosen:
            slot = item.target.slot
            spec = self._bundles.spec(item)
            report = await self._host.trial(spec, timeout_s=self._trial_timeout_s)
            if isinstance(report, Failed):
                return StepFailed(report.reason, report.detail, slot)
            self.measured |= {
                "golden_vectors": float(report.vectors),
                "golden_max_abs_err": report.max_abs_err,
                "load_ms": report.load_ms,
                "p50_us": report.p50_us,
                "p95_us": report.p95_us,
                "ram_mib": report.ram_mib,
            }
        return TrialPassed()

    async def _activate(self, chosen: tuple[Installed, ...]) -> Event:
        began = time.monotonic()
        failed = await self._host.activate(tuple(self._bundles.spec(item) for item in chosen))
        if failed is not None:
            return StepFailed(failed.reason, failed.detail)
        self.serving |= {item.target.slot: item for item in chosen}
        self.measured["activate_ms"] = round((time.monotonic() - began) * 1000, 1)
        return Activated()

    async def _observe(self, command: Observe) -> Event:
        deadline = time.monotonic() + command.seconds
        while True:
            for item in command.chosen:
                stats = next((s for s in self._host.stats() if s.slot == item.target.slot), None)
                if stats is None or stats.restarts:
                    return StepFailed(Reason.PROBATION_FAILED, "its worker died", item.target.slot)
                if stats.failures > command.max_failures:
                    return StepFailed(
                        Reason.PROBATION_FAILED,
                        f"{stats.failures} of {stats.requests} requests failed",
                        item.target.slot,
                    )
            if time.monotonic() >= deadline:
                return ProbationPassed()
            await asyncio.sleep(WATCH_S)

    async def _restore(self, command: Restore) -> Event:
        if command.slots:
            specs = tuple(self._bundles.spec(item) for item in command.slots)
            failed = await self._host.activate(specs)
            if failed is not None:
                return RollbackFailed(failed.detail)
            self.serving |= {item.target.slot: item for item in command.slots}
        for slot in command.stop:
            await self._host.deactivate(slot)
            self.serving.pop(slot, None)
        return RolledBack()

    async def _bring(self, target: Target, order: Order, progress: Progress) -> Arrival:
        """`Bundles.bring` in a thread, which has ended when this returns, also when canceled."""
        work = asyncio.create_task(
            asyncio.to_thread(self._bundles.bring, target, order.sources, progress)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._bundles.cancel()
            await asyncio.gather(work, return_exceptions=True)
            self._bundles.resume()
            raise

    def _progress_reporter(self, order: Order) -> Progress:
        """A callback for the download's thread that passes on a twentieth, or ten seconds."""
        loop = asyncio.get_running_loop()
        last = [0.0, time.monotonic()]

        def report(target: Target, done: int, total: int) -> None:
            share = done / total if total else 1.0
            if share - last[0] < PROGRESS_SHARE and time.monotonic() - last[1] < PROGRESS_S:
                return
            last[:] = [share, time.monotonic()]
            measured = {"progress_ratio": round(share, 3), "progress_bytes": float(done)}
            detail = f"{target.model}@{target.version}"
            loop.call_soon_threadsafe(
                self._reporter.step, order, Phase.DOWNLOADING, None, detail, measured
            )

        return report
