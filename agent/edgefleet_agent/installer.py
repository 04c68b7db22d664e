"""The shell of the install machine: judges orders, makes steps durable, has them performed.

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
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from edgefleet_agent import install, policy
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.device import Device, Installed
from edgefleet_agent.identity import Identity
from edgefleet_agent.install_commands import Command, Proceed, Reconsider, Serve, Settle
from edgefleet_agent.install_events import (
    Begin,
    Booted,
    Event,
    KeptDying,
    OrderRejected,
    OrderTaken,
    StepFailed,
    TrustSeen,
    Withdrawn,
)
from edgefleet_agent.keeper import TrustKeeper
from edgefleet_agent.performer import LOOK_S, Performer
from edgefleet_agent.ports import ModelHost, ModelSpec, Reporter, Surroundings
from edgefleet_contract import messages
from edgefleet_contract.errors import DeviceError, EdgefleetError, PeerError, TransientError
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import RunningModel
from edgefleet_contract.trust import Trust

log = logging.getLogger(__name__)

RETRY_S: Final = 20.0
"""How long an order waits, about, where the publishers cannot be asked."""
DISK_RETRY_S: Final = (1.0, 60.0)


class _Ask:
    """In the queue: the publishers are to be asked."""


@dataclass(frozen=True, slots=True)
class _Again:
    """In the queue: an order that waited is to be judged again."""

    order: Order


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


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
        surroundings: Surroundings,
        trial_timeout_s: float,
        clock: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
        disk_retry_s: tuple[float, float] = DISK_RETRY_S,
    ) -> None:
        self._disk_retry_s = disk_retry_s
        self._identity = identity
        self._journal = journal
        self._keeper = keeper
        self._reporter = reporter
        self._performer = Performer(
            bundles=bundles,
            host=host,
            reporter=reporter,
            surroundings=surroundings,
            trial_timeout_s=trial_timeout_s,
            clock=clock,
            look_s=look_s,
        )
        self._queue: asyncio.Queue[Event | bytes | _Ask | _Again] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None
        self._refused = ""
        self._waiting = b""
        self._started = asyncio.Event()
        host.on_crash_loop(self._kept_dying)
        self.device = Device()

    @property
    def running(self) -> tuple[RunningModel, ...]:
        """The models that serve now, on probation or committed."""
        return self._performer.running

    @property
    def serving(self) -> dict[str, Installed]:
        """What serves now, by slot, on probation or committed."""
        return self._performer.serving

    def order_arrived(self, raw: bytes) -> None:
        """Take the bytes of an order, from the loop's thread."""
        self._waiting = raw
        self._queue.put_nowait(raw)

    async def run(self, started: asyncio.Event) -> None:
        """Resume from the journal, then work until canceled.

        `started` is set once the committed models serve, which waits for no write to the disk.
        """
        self.device = await asyncio.to_thread(self._journal.load)
        await self._keeper.load()
        self._started = started
        await self._feed(Booted())
        try:
            while True:
                item = await self._queue.get()
                if isinstance(item, bytes):
                    await self._judge(item)
                elif isinstance(item, _Ask):
                    await self._refresh()
                elif isinstance(item, _Again):
                    await self._reconsider(item.order)
                elif isinstance(item, KeptDying):
                    await self._give_way(item)
                else:
                    await self._feed(item)
        finally:
            await self._stop_work()

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
        await self._withdraw(trust)

    async def _withdraw(self, trust: Trust) -> None:
        """Part from what may not run any more; a swap that is on just now is waited for."""
        withdrawn = policy.judge_running(self.device, trust)
        if withdrawn is not None and (self.device.phase, Withdrawn) in install.TABLE:
            log.warning("withdrawn by the publishers: %s", ", ".join(withdrawn.digests))
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
        if isinstance(verdict, policy.Accept):
            verdict = policy.judge_means(order, is_zone=_is_zone)
        match verdict:
            case policy.Accept():
                await self._feed(OrderTaken(order))
            case policy.Refuse(reason, detail, spent=True):
                await self._feed(OrderRejected(order, reason, detail))
            case policy.Refuse(reason, detail):
                self._refuse(raw, reason, detail, order)

    async def _reconsider(self, order: Order) -> None:
        """Judge an order that waited: what it waited for may have changed what it may do."""
        if self.device.pending != order:
            return  # a newer one was taken meanwhile
        verdict = policy.judge_waited(order, self.device, self._keeper.trust, self._keeper.now)
        match verdict:
            case policy.Accept():
                await self._feed(OrderTaken(order))
            case policy.Refuse(reason, detail):
                await self._feed(OrderRejected(order, reason, detail))

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

    async def _feed(self, event: Event) -> None:
        before = self.device
        try:
            after, commands = install.step(before, event)
        except install.IllegalStep as error:
            log.info("%s: dropped", error.message)  # an outcome that came too late
            return
        for serve in commands:
            if isinstance(serve, Serve):  # nothing to make durable first: it is what was committed
                await self._serve(serve)
        if after != before:
            await self._make_durable(after)
            self._tell(before, after)
        ended = after.phase.is_final and after.phase is not before.phase
        if ended:
            await self._stop_work()
        for command in commands:
            if not isinstance(command, Serve):
                await self._start(command)
        if ended and self._keeper.trust is not None:
            await self._withdraw(self._keeper.trust)

    def _kept_dying(self, spec: ModelSpec, words: str) -> None:
        self._queue.put_nowait(KeptDying(spec.slot, spec.bundle_sha256, words))

    async def _give_way(self, event: KeptDying) -> None:
        """What keeps dying gives way; the fleet hears of it, also where that ends no install."""
        before = self.device
        await self._feed(event)
        old, new = before.slots.get(event.slot), self.device.slots.get(event.slot)
        if old is None or new is None or old.target.bundle_sha256 != event.bundle:
            return
        what = f"{event.slot}: {old.target.model}@{old.target.version} keeps dying"
        instead = "there is nothing to go back to"
        if new != old:
            instead = f"{new.target.model}@{new.target.version} serves"
        log.error("%s, %s: %s", what, event.detail, instead)
        if self.device.phase is before.phase:
            detail = f"{what}, {event.detail}; {instead}"
            self._reporter.step(None, self.device.phase, Reason.CRASH_LOOP, detail, {})

    async def _serve(self, serve: Serve) -> None:
        for item in serve.slots:
            failed = await self._performer.serve(item)
            if failed is not None:
                self._queue.put_nowait(failed)
        self._started.set()

    async def _make_durable(self, device: Device) -> None:
        """What is committed stands in both copies: a journal that loses one forgets no model."""
        pause, most = self._disk_retry_s
        told = False
        save = self._journal.save if device.slots == self.device.slots else self._journal.save_twice
        while True:
            try:
                await asyncio.to_thread(save, device)
            except DeviceError as error:
                log.error("%s; trying again in %.0f s", error.message, pause)
                if not told:
                    self._complain(device, error)
                    told = True
                await asyncio.sleep(pause)
                pause = min(most, pause * 2)
            else:
                self.device = device
                return

    def _complain(self, wanted: Device, error: DeviceError) -> None:
        """Say once that a step waits for the disk, and in which phase it waits."""
        now, install = self.device.install, wanted.install
        order, phase = (install.order if install else None), self.device.phase
        if now is None or now.order != order or phase.is_final:
            order, phase = (None, phase) if wanted.phase.is_final else (order, Phase.ACCEPTED)
        self._reporter.step(order, phase, error.reason, error.message, {})

    def _tell(self, before: Device, after: Device) -> None:
        old, new = before.install, after.install
        if new is None:
            return
        names = ", ".join(f"{t.model}@{t.version}" for t in new.order.targets) or "nothing"
        if old is not None and (old.phase, old.order) == (new.phase, new.order):
            if (old.detail, old.attempt) != (
                new.detail,
                new.attempt,
            ):  # it waits, and says for what
                log.info("install %s: %s: %s (try %d)", names, new.phase, new.detail, new.attempt)
            if old.detail != new.detail:
                self._reporter.step(new.order, new.phase, None, new.detail, {})
            return
        arrow = f"{before.phase} -> {after.phase}"
        if new.reason is None:
            log.info("install %s: %s", names, arrow)
        else:
            log.warning("install %s: %s: %s (%s)", names, arrow, new.reason, new.detail)
        if new.phase is Phase.ACCEPTED:
            self._performer.measured = {}
        self._reporter.step(
            new.order, new.phase, new.reason, new.detail, dict(self._performer.measured)
        )

    async def _start(self, command: Command) -> None:
        match command:
            case Settle(stop):
                await self._performer.stop(stop)
                if self.device.phase.is_final:  # else an install gathers files of its own
                    await self._performer.collect(self.device.kept)
                self._reporter.state()
            case Proceed():
                self._queue.put_nowait(Begin())
            case Reconsider(order):
                self._queue.put_nowait(_Again(order))
            case _:
                await self._stop_work()
                self._work = asyncio.create_task(self._perform(command))

    async def _perform(self, command: Command) -> None:
        try:
            outcome: Event = await self._performer.perform(command)
        except EdgefleetError as error:
            reason = error.reason if isinstance(error, PeerError | DeviceError) else Reason.INTERNAL
            outcome = StepFailed(reason, error.message)
        except Exception as error:
            log.exception("the install met an error of its own")
            outcome = StepFailed(Reason.INTERNAL, repr(error)[:200])
        self._queue.put_nowait(outcome)

    async def _stop_work(self) -> None:
        if self._work is None:
            return
        work, self._work = self._work, None
        if work is asyncio.current_task() or work.done():
            return
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
