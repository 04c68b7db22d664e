"""The shell of the install machine: performs what `install.step` decided, feeds outcomes back.

Each step is made durable before its commands run. One command runs at a time; a newer order ends
it where the table says that it may be ended. A disk that cannot be written stops the machine, not
the models: the step is tried again until the disk is back.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from edgefleet_agent import install, policy
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.bundles import Arrival, Bundles, Progress
from edgefleet_agent.device import (
    Activate,
    Activated,
    Begin,
    Booted,
    Command,
    Device,
    Download,
    Downloaded,
    Event,
    Installed,
    Interrupted,
    Observe,
    OrderRejected,
    OrderTaken,
    ProbationPassed,
    Proceed,
    Restore,
    RollbackFailed,
    RolledBack,
    SelfTest,
    Serve,
    ServeFailed,
    Settle,
    StepFailed,
    TrialPassed,
    TrustSeen,
    Withdrawn,
)
from edgefleet_agent.identity import Identity
from edgefleet_agent.keeper import TrustKeeper
from edgefleet_agent.ports import Failed, ModelHost, Reporter
from edgefleet_contract import messages
from edgefleet_contract.errors import DeviceError, EdgefleetError, PeerError, TransientError
from edgefleet_contract.messages import Order, Phase, RunningModel, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import Trust

log = logging.getLogger(__name__)

WATCH_S: Final = 0.1
"""How often a model on probation is looked at."""
RETRY_S: Final = 20.0
"""How long an order waits, about, where the publishers cannot be asked."""
PROGRESS_S: Final = 10.0
PROGRESS_SHARE: Final = 0.05
DISK_RETRY_S: Final = (1.0, 60.0)


class _Ask:
    """In the queue: the publishers are to be asked."""


class Installer:
    """Runs the install machine of one device on one event loop.

    The reporter is told after every durable change, with `device` already showing it.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        journal: Journal,
        keeper: TrustKeeper,
        bundles: Bundles,
        host: ModelHost,
        reporter: Reporter,
        trial_timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._journal = journal
        self._keeper = keeper
        self._bundles = bundles
        self._host = host
        self._reporter = reporter
        self._trial_timeout_s = trial_timeout_s
        self._clock = clock
        self._queue: asyncio.Queue[Event | bytes | _Ask] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None
        self._measured: dict[str, float] = {}
        self._refused = ""
        self._waiting = b""
        self._serving: dict[str, Installed] = {}
        self.device = Device()

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
            for slot, item in sorted(self._serving.items())
        )

    def order_arrived(self, raw: bytes) -> None:
        """Take the bytes of an order, from the loop's thread."""
        self._waiting = raw
        self._queue.put_nowait(raw)

    async def run(self, started: asyncio.Event) -> None:
        """Resume from the journal, then work until canceled. `started` is set once models serve."""
        self.device = await asyncio.to_thread(self._journal.load)
        await self._keeper.load()
        await self._feed(Booted())
        started.set()
        try:
            while True:
                item = await self._queue.get()
                if isinstance(item, bytes):
                    await self._judge(item)
                elif isinstance(item, _Ask):
                    await self._refresh()
                else:
                    await self._feed(item)
        finally:
            await self._stop_work()

    # --- orders ----------------------------------------------------------------------------------

    def ask_publishers(self) -> None:
        """Refresh what the publishers say, soon; from the loop's thread."""
        self._queue.put_nowait(_Ask())

    async def _refresh(self) -> None:
        """Ask the publishers; what they took back stops serving, unless a swap is on just now."""
        try:
            trust = await self._keeper.refresh()
        except (PeerError, TransientError) as error:
            log.warning("%s", error.message)
            return
        await self._follow(trust)

    async def _follow(self, trust: Trust) -> None:
        learned = self._keeper.learned_time
        if trust.versions != self.device.trust or learned > self.device.time_floor + 3600:
            await self._feed(TrustSeen(trust.versions, learned))
        withdrawn = policy.judge_running(self.device, trust)
        if withdrawn is not None and (self.device.phase, Withdrawn) in install.TABLE:
            log.warning("withdrawn by the publishers: %s", ", ".join(withdrawn.slots))
            await self._feed(withdrawn)

    async def _open(self, raw: bytes) -> Order:
        """The order, if a director signed it; asks the publishers about directors once."""
        try:
            return messages.open_order(raw, self._keeper.directors)
        except PeerError as error:
            if error.reason is not Reason.UNKNOWN_KEY:
                raise
            await self._keeper.refresh()
            return messages.open_order(raw, self._keeper.directors)

    async def _judge(self, raw: bytes) -> None:
        try:
            order = await self._open(raw)
        except PeerError as error:
            self._refuse(raw, error.reason, error.message)
            return
        except TransientError as error:
            self._later(raw, error)
            return
        enrolment = self._identity.enrolment
        verdict = policy.judge(
            order,
            self.device,
            fleet=enrolment.fleet,
            name=enrolment.device,
            clock=self._keeper.now,
        )
        if isinstance(verdict, policy.Accept):
            try:
                trust = await self._keeper.for_order(order)
            except PeerError as error:
                self._refuse(raw, error.reason, error.message, order)
                self._later(raw, error)
                return
            except TransientError as error:
                self._later(raw, error)
                return
            await self._follow(trust)
            verdict = policy.judge_releases(order, trust)
        match verdict:
            case policy.Accept():
                await self._feed(OrderTaken(order))
            case policy.Refuse(reason, detail, spent=True):
                await self._feed(OrderRejected(order, reason, detail))
            case policy.Refuse(reason, detail):
                self._refuse(raw, reason, detail, order)

    def _later(self, raw: bytes, error: EdgefleetError) -> None:
        """Judge an order again after a pause, unless a newer one came: the publishers are away."""
        log.info("the order waits: %s", error.message)
        self._waiting = raw
        pause = RETRY_S * (0.5 + random.random())

        def again() -> None:
            if self._waiting == raw:
                self._queue.put_nowait(raw)

        asyncio.get_running_loop().call_later(pause, again)

    def _refuse(self, raw: bytes, reason: Reason, detail: str, order: Order | None = None) -> None:
        """Say once that an order was refused; the broker repeats it at every connection."""
        digest = hashlib.sha256(raw).hexdigest()
        if digest != self._refused:
            self._refused = digest
            log.warning("order refused: %s (%s)", reason, detail)
            self._reporter.step(order, Phase.REJECTED, reason, detail, {})

    # --- steps -----------------------------------------------------------------------------------

    async def _feed(self, event: Event) -> None:
        before = self.device
        try:
            after, commands = install.step(before, event)
        except install.IllegalStep as error:
            log.info("%s: dropped", error.message)  # an outcome that came too late
            return
        if after != before:
            await self._make_durable(after)
            self._tell(before, after)
        if before.install and after.install and before.install.order != after.install.order:
            await self._stop_work()
        for command in commands:
            await self._start(command)

    async def _make_durable(self, device: Device) -> None:
        pause, most = DISK_RETRY_S
        while True:
            try:
                await asyncio.to_thread(self._journal.save, device)
            except DeviceError as error:
                log.error("%s; trying again in %.0f s", error.message, pause)
                await asyncio.sleep(pause)
                pause = min(most, pause * 2)
            else:
                self.device = device
                return

    def _tell(self, before: Device, after: Device) -> None:
        old, new = before.install, after.install
        if new is None or (old is not None and (old.phase, old.order) == (new.phase, new.order)):
            return
        names = ", ".join(f"{t.model}@{t.version}" for t in new.order.targets) or "nothing"
        arrow = f"{before.phase} -> {after.phase}"
        if new.reason is None:
            log.info("install %s: %s", names, arrow)
        else:
            log.warning("install %s: %s: %s (%s)", names, arrow, new.reason, new.detail)
        if new.phase is Phase.ACCEPTED:
            self._measured = {}
        self._reporter.step(new.order, new.phase, new.reason, new.detail, dict(self._measured))

    # --- commands --------------------------------------------------------------------------------

    async def _start(self, command: Command) -> None:
        match command:
            case Serve(slots):
                for item in slots:
                    await self._serve(item)
            case Settle(stop):
                for slot in stop:
                    await self._host.deactivate(slot)
                    self._serving.pop(slot, None)
                kept = (*self.device.slots.values(), *self.device.previous.values())
                await asyncio.to_thread(self._bundles.collect, kept)
                self._reporter.state()
            case Proceed():
                self._queue.put_nowait(Begin())
            case _:
                await self._stop_work()
                self._work = asyncio.create_task(self._perform(command))

    async def _perform(self, command: Command) -> None:
        try:
            outcome = await self._do(command)
        except EdgefleetError as error:
            reason = error.reason if isinstance(error, PeerError | DeviceError) else Reason.INTERNAL
            outcome = StepFailed(reason, error.message)
        self._queue.put_nowait(outcome)

    async def _stop_work(self) -> None:
        if self._work is None:
            return
        work, self._work = self._work, None
        if work is asyncio.current_task() or work.done():
            return
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    async def _do(self, command: Command) -> Event:
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

    async def _serve(self, item: Installed) -> None:
        try:
            failed = await self._host.activate((self._bundles.spec(item),))
        except (DeviceError, PeerError) as error:
            failed = Failed(error.reason, error.message)
        if failed is None:
            self._serving[item.target.slot] = item
        else:
            log.error("%s cannot be served: %s", item.target.slot, failed.detail)
            self._queue.put_nowait(ServeFailed(item.target.slot, failed.detail))

    async def _download(self, command: Download) -> Event:
        await asyncio.sleep(command.delay_s)
        progress = self._progress_reporter(command.order)
        try:
            arrivals = [
                await self._bring(target, command.order, progress) for target in command.targets
            ]
        except TransientError as error:
            return Interrupted(error.message, int(self._clock()), random.random())
        self._measured["download_bytes"] = float(sum(item.transferred for item in arrivals))
        return Downloaded(tuple(item.installed for item in arrivals))

    async def _self_test(self, chosen: tuple[Installed, ...]) -> Event:
        for item in chosen:
            slot = item.target.slot
            spec = self._bundles.spec(item)
            report = await self._host.trial(spec, timeout_s=self._trial_timeout_s)
            if isinstance(report, Failed):
                return StepFailed(report.reason, report.detail, slot)
            self._measured |= {
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
        self._serving |= {item.target.slot: item for item in chosen}
        self._measured["activate_ms"] = round((time.monotonic() - began) * 1000, 1)
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
            self._serving |= {item.target.slot: item for item in command.slots}
        for slot in command.stop:
            await self._host.deactivate(slot)
            self._serving.pop(slot, None)
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
