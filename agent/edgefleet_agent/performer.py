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
from zoneinfo import ZoneInfo

from edgefleet_agent.bundles import Arrival, Bundles, Progress
from edgefleet_agent.canarying import canary_measurements, canary_objection
from edgefleet_agent.device import Installed
from edgefleet_agent.install_commands import (
    Activate,
    AwaitWindow,
    Command,
    Download,
    Observe,
    Restore,
    RunCanary,
    RunShadow,
    SelfTest,
    Stage,
)
from edgefleet_agent.install_events import (
    Activated,
    CanaryPassed,
    Downloaded,
    Event,
    Held,
    Interrupted,
    ProbationPassed,
    RollbackFailed,
    RolledBack,
    ServeFailed,
    ShadowPassed,
    Staged,
    StepFailed,
    TrialPassed,
    WindowOpened,
)
from edgefleet_agent.ports import AllowanceSpent, Failed, ModelHost, Reporter, Surroundings
from edgefleet_agent.runtime.process import finish
from edgefleet_agent.shadowing import shadow_measurements, shadow_objection
from edgefleet_agent.telemetry import where_it_runs
from edgefleet_agent.windows import hindrance, next_day
from edgefleet_contract.errors import DeviceError, EdgefleetError, PeerError, TransientError
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import RunningModel

log = logging.getLogger(__name__)

WATCH_S: Final = 0.1
"""How often a model on probation is looked at."""
AGAIN_S: Final = 0.1
"""How soon a transfer that is broken off, and goes on, is told again."""
LOOK_S: Final = 15.0
"""How often the board is looked at where an install waits for it."""
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
        surroundings: Surroundings,
        trial_timeout_s: float,
        clock: Callable[[], float],
        look_s: float,
    ) -> None:
        self._bundles = bundles
        self._host = host
        self._reporter = reporter
        self._surroundings = surroundings
        self._trial_timeout_s = trial_timeout_s
        self._clock = clock
        self._look_s = look_s
        self.measured: dict[str, float] = {}
        self.waiting_for = ""
        self.serving: dict[str, Installed] = {}

    @property
    def running(self) -> tuple[RunningModel, ...]:
        """The models that serve now, on probation or committed."""
        runs_on = {stats.slot: where_it_runs(stats) for stats in self._host.stats()}
        return tuple(
            RunningModel(
                slot,
                item.target.model,
                item.target.version,
                item.target.bundle_sha256,
                item.variant,
                item.engine,
                "; ".join(filter(None, (item.why, runs_on.get(slot)))),
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
            case Stage(chosen):
                return await self._stage(chosen)
            case AwaitWindow(order):
                return await self._await_window(order)
            case SelfTest(chosen):
                return await self._self_test(chosen)
            case RunShadow():
                return await self._shadow(command)
            case RunCanary():
                return await self._canary(command)
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
        except OSError as error:  # no memory, no process: the next best may need less
            failed = Failed(Reason.ACTIVATION_FAILED, f"cannot be started: {error}")
        if failed is None:
            self.serving[item.target.slot] = item
            return None
        log.error("%s cannot be served: %s", item.target.slot, failed.detail)
        return ServeFailed(item.target.slot, failed.detail)

    async def stop(self, slots: tuple[str, ...]) -> None:
        """Serve nothing more in these slots."""
        for slot in slots:
            await self._host.deactivate(slot)
            self.serving.pop(slot, None)

    async def collect(self, kept: tuple[Installed, ...]) -> None:
        """Remove the files that none of these needs."""
        try:
            await asyncio.to_thread(self._bundles.collect, kept)
        except OSError as error:
            log.warning("cannot collect garbage: %s", error.strerror)

    async def _download(self, command: Download) -> Event:
        await asyncio.sleep(command.delay_s)
        order, now = command.order, int(self._clock())
        self._bundles.allow(
            self._allowance(command, now), max_bytes_per_s=order.policy.max_bytes_per_s
        )
        progress = self._progress_reporter(order)
        try:
            arrivals = [await self._bring(target, order, progress) for target in command.targets]
        except AllowanceSpent as error:
            is_metered = order.policy.conditions.unmetered and self._surroundings.now().metered
            wait_s = self._look_s if is_metered else next_day(now)
            return Held(error.message, now, wait_s, self._count_moved())
        except TransientError as error:
            wait_s, moved = error.retry_after_s or 0.0, self._count_moved()
            return Interrupted(error.message, now, random.random(), wait_s, moved)
        except EdgefleetError as error:
            moved = self._count_moved()
            if not isinstance(error, PeerError) or error.reason is not Reason.NOT_FOUND:
                raise
            return Interrupted(error.message, now, random.random(), 0.0, moved, error.reason)
        chosen = tuple(item.installed for item in arrivals)
        return Downloaded(chosen, now, self._count_moved())

    def _allowance(self, command: Download, now: int) -> int | None:
        """Bytes that may come over the uplink now: none of a metered one, what a budget leaves."""
        asked = command.order.policy
        if asked.conditions.unmetered and self._surroundings.now().metered:
            return 0
        budget = asked.max_bytes_per_day
        return command.spent.left(now, budget) if budget else None

    def _count_moved(self) -> int:
        """Note what came over all tries of this install, by each way; the bytes of the uplink."""
        moved = self._bundles.take_moved()
        found = {"download_bytes": sum(moved.ways.values())}
        found |= {f"bytes_{name}": size for name, size in moved.ways.items()}
        if moved.deltas:
            found |= {"delta_bytes": moved.deltas, "delta_saved_bytes": moved.saved}
        for key, size in found.items():
            self.measured[key] = self.measured.get(key, 0.0) + size
        return moved.uplink

    async def _stage(self, chosen: tuple[Installed, ...]) -> Event:
        """Every byte is read again: what is tested and served is what is on the disk."""
        try:
            for item in chosen:
                await asyncio.to_thread(self._bundles.check, item)
        except DeviceError as error:
            now = int(self._clock())
            return Interrupted(error.message, now, random.random(), reason=error.reason)
        return Staged()

    async def _await_window(self, order: Order) -> Event:
        while True:
            now = int(self._clock())
            if now > order.expires:
                return StepFailed(Reason.ORDER_EXPIRED, "no window opened before the order ended")
            held_by = hindrance(order.policy, self._surroundings.now(), now, ZoneInfo)
            if not held_by:
                return WindowOpened()
            if held_by != self.waiting_for:
                self.waiting_for = held_by
                self._reporter.step(order, Phase.WAIT_WINDOW, None, held_by, {})
            await asyncio.sleep(self._look_s)

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
            if report.made_room:
                self.measured["resource_preserving"] = 1.0
        return TrialPassed()

    async def _shadow(self, command: RunShadow) -> Event:
        asked = command.policy
        for item in command.chosen:
            slot = item.target.slot
            report = await self._host.shadow(
                self._bundles.spec(item),
                seconds=asked.seconds,
                share=asked.share_percent / 100,
                min_requests=asked.min_requests,
                max_cpu_share=asked.max_cpu_percent / 100,
            )
            if isinstance(report, Failed):
                return StepFailed(report.reason, report.detail, slot)
            self.measured |= shadow_measurements(report)
            wrong = shadow_objection(report, asked)
            if wrong:
                return StepFailed(Reason.SHADOW_DISAGREED, wrong, slot)
        return ShadowPassed()

    async def _canary(self, command: RunCanary) -> Event:
        asked = command.policy
        for item in command.chosen:
            slot = item.target.slot
            report = await self._host.canary(
                self._bundles.spec(item),
                seconds=asked.seconds,
                share=asked.share_percent / 100,
                min_requests=asked.min_requests,
                max_failures=asked.max_failures,
            )
            if isinstance(report, Failed):
                return StepFailed(report.reason, report.detail, slot)
            self.measured |= canary_measurements(report)
            wrong = canary_objection(report, asked)
            if wrong:
                return StepFailed(Reason.CANARY_FAILED, wrong, slot)
        return CanaryPassed()

    async def _activate(self, chosen: tuple[Installed, ...]) -> Event:
        began = time.monotonic()
        failed = await self._host.activate(tuple(self._bundles.spec(item) for item in chosen))
        if failed is not None:
            return StepFailed(failed.reason, failed.detail)
        self.serving |= {item.target.slot: item for item in chosen}
        self.measured["activate_ms"] = round((time.monotonic() - began) * 1000, 1)
        fresh = {item.target.slot for item in chosen}
        if any(stats.made_room for stats in self._host.stats() if stats.slot in fresh):
            self.measured["resource_preserving"] = 1.0
        return Activated()

    async def _observe(self, command: Observe) -> Event:
        asked, began = command.policy, time.monotonic()
        linked = not asked.needs_link_s
        while True:
            served = 0
            for item in command.chosen:
                stats = next((s for s in self._host.stats() if s.slot == item.target.slot), None)
                if stats is None or stats.restarts:
                    return StepFailed(Reason.PROBATION_FAILED, "its worker died", item.target.slot)
                if stats.failures > asked.max_failures:
                    return StepFailed(
                        Reason.PROBATION_FAILED,
                        f"{stats.failures} of {stats.requests} requests failed",
                        item.target.slot,
                    )
                served += stats.requests - stats.failures
            passed = time.monotonic() - began
            linked = linked or self._surroundings.is_linked
            if not linked and passed > asked.needs_link_s:
                return StepFailed(Reason.LINK_LOST, f"for {asked.needs_link_s} s")
            enough = 0 < asked.probation_requests <= served
            if linked and (enough or passed >= asked.probation_s):
                return ProbationPassed()
            await asyncio.sleep(WATCH_S)

    async def _restore(self, command: Restore) -> Event:
        if command.slots:
            try:
                specs = tuple(self._bundles.spec(item) for item in command.slots)
                failed = await self._host.activate(specs)
            except (DeviceError, PeerError) as error:
                failed = Failed(error.reason, error.message)
            if failed is not None:
                return RollbackFailed(failed.detail)
            self.serving |= {item.target.slot: item for item in command.slots}
        for slot in command.stop:
            await self._host.deactivate(slot)
            self.serving.pop(slot, None)
        return RolledBack()

    async def _bring(self, target: Target, order: Order, progress: Progress) -> Arrival:
        """`Bundles.bring` in a thread, which has ended when this returns, also when canceled."""
        serving = tuple(self.serving.values())
        work = asyncio.create_task(
            asyncio.to_thread(self._bundles.bring, target, order.sources, progress, serving=serving)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await finish(self._break_off(work))
            raise

    async def _break_off(self, work: asyncio.Task[Arrival]) -> None:
        """End a transfer. One that connects at this moment has no socket yet that could be shut
        down, so it is told again until it ends."""
        while not work.done():
            self._bundles.cancel()
            await asyncio.wait([work], timeout=AGAIN_S)
        if not work.cancelled():
            work.exception()  # nobody else will ask for it
        self._bundles.resume()

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
