"""What serves, and how it is replaced: all or none of some slots, without a lost request.

A swap starts and warms the new workers, changes the routes in one step, and lets the old workers
finish what they have. Whatever fails before the step leaves the old ones serving, untouched. Where
memory is too short for both (`room.py` says when), the old ones end first: requests wait for the
new ones, within the queue and the deadline, and the old ones come back where those do not load.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime.chain import ON_THE_PROCESSOR
from edgefleet_agent.runtime.front_process import FrontProcess
from edgefleet_agent.runtime.process import finish
from edgefleet_agent.runtime.room import SwapMode
from edgefleet_agent.runtime.worker_process import WorkerProcess
from edgefleet_agent.runtime.workshop import Served, Workshop
from edgefleet_contract.reasons import Reason

_log = logging.getLogger(__name__)

ROUTE_S: Final = 30.0


class Swaps:
    """The slots that serve, and their changes, one at a time.

    Args:
        workshop: makes the workers.
        send: sends the front the routes as they are now; the number of the table.
        drain_s: how long an old worker may take to finish.
    """

    def __init__(self, workshop: Workshop, send: Callable[[], int], *, drain_s: float) -> None:
        self._workshop, self._send, self._drain_s = workshop, send, drain_s
        self._one_at_a_time = asyncio.Lock()
        self.served: dict[str, Served] = {}
        self.front: FrontProcess | None = None

    async def end(self) -> FrontProcess | None:
        """Drain and end every worker; the front, which is no longer told anything."""
        async with self._one_at_a_time:
            if self.front is not None:
                await self._replace({}, {})
            front, self.front = self.front, None
        return front

    async def trial(self, spec: ModelSpec, *, timeout_s: float) -> TrialReport | Failed:
        """See `ModelHost.trial`. It waits for a swap only where it needs the slot's memory."""
        if spec.slot not in self.served or self._workshop.fits((spec,)):
            return await self._workshop.trial(spec, timeout_s=timeout_s)
        async with self._one_at_a_time:
            served = self.served.get(spec.slot)
            if served is None:
                return await self._workshop.trial(spec, timeout_s=timeout_s)
            _log.info("trial of %s@%d: %s", spec.model, spec.version, SwapMode.RESOURCE_PRESERVING)
            again = {spec.slot: self._workshop.serve_again(served)}
            try:
                stuck = await self._make_way(again)
                outcome = (
                    await self._workshop.trial(spec, timeout_s=timeout_s)
                    if stuck is None
                    else stuck
                )
            except BaseException:
                await finish(self._return(again, soon=True))
                raise
            await finish(self._return(again))
        if stuck is not None:
            return Failed(Reason.INTERNAL, stuck.detail)  # no fault of what was to be tried
        return replace(outcome, made_room=True) if isinstance(outcome, TrialReport) else outcome

    async def activate(self, specs: tuple[ModelSpec, ...]) -> Failed | None:
        """See `ModelHost.activate`. What already serves in its slot is left as it is."""
        async with self._one_at_a_time:
            if self.front is None:
                return Failed(Reason.ACTIVATION_FAILED, "nothing is served: the host is closed")
            fresh = {
                spec.slot: self._workshop.serve(spec) for spec in specs if not self._serves(spec)
            }
            if not fresh:
                return None
            before = self.served
            is_tight = before.keys() & fresh and not self._workshop.fits(
                [served.spec for served in fresh.values()]
            )
            failed = await (self._bring_in_turn(fresh) if is_tight else self._bring(fresh))
            if failed is None:
                freed = _freed(before, self.served)
                if again := {k: s for k, s in fresh.items() if freed & s.worker.passed_over_names}:
                    await self._bring({k: self._workshop.serve_again(s) for k, s in again.items()})
            return failed

    async def restart(self, slot: str) -> Failed | None:
        """Another worker for what serves in a slot; the counts go on, no request is lost."""
        async with self._one_at_a_time:
            served = self.served.get(slot)
            if self.front is None or served is None:
                return Failed(Reason.ACTIVATION_FAILED, f"nothing serves in {slot}")
            fresh = {slot: self._workshop.serve_again(served)}
            if self._workshop.fits((served.spec,)):
                return await self._bring(fresh)
            return await self._bring_in_turn(fresh)

    async def deactivate(self, slot: str) -> None:
        """See `ModelHost.deactivate`."""
        async with self._one_at_a_time:
            if slot in self.served:  # a closed host serves none
                await self._replace({k: s for k, s in self.served.items() if k != slot}, {})

    async def _bring(self, fresh: dict[str, Served]) -> Failed | None:
        """Start the workers of these, and change the routes to them; else leave none of them."""
        try:
            serves = any(old.worker.pid is not None for old in self.served.values())
            failed = await _start_all(fresh.values(), yields=serves)
            after = {**self.served, **fresh}
            if failed is None and not await self._replace(after, fresh):
                failed = Failed(Reason.ACTIVATION_FAILED, "the front did not take the routes")
        except BaseException:
            await finish(_stop_all([s.worker for s in fresh.values() if not self._is_in(s)]))
            raise
        if failed is not None:
            await finish(_stop_all([served.worker for served in fresh.values()]))
        return failed

    async def _bring_in_turn(self, fresh: dict[str, Served]) -> Failed | None:
        """The old ones leave, then the new ones load; where they do not, the old ones come back."""
        before = self.served
        for served in fresh.values():
            served.made_room = True
            words = f"{served.spec.model}@{served.spec.version}"
            _log.info("activation of %s: %s", words, SwapMode.RESOURCE_PRESERVING)
        try:
            failed = await self._make_way(fresh) or await _start_all(fresh.values())
        except BaseException:
            await finish(self._go_back(before, fresh, soon=True))
            raise
        if failed is not None:
            await finish(self._go_back(before, fresh))
        return failed

    async def _make_way(self, coming: dict[str, Served]) -> Failed | None:
        """Route to workers that are still to come, and end those that they come in place of."""
        for served in coming.values():
            failed = served.worker.listen()
            if failed is not None:
                return failed
        if not await self._replace({**self.served, **coming}, coming):
            return Failed(Reason.ACTIVATION_FAILED, "the front did not take the routes")
        return None

    async def _go_back(
        self, before: dict[str, Served], fresh: dict[str, Served], *, soon: bool = False
    ) -> None:
        """Route away from what did not come, end it, and start again what it came in place of."""
        if self.served is before:  # nobody left
            await _stop_all([served.worker for served in fresh.values()])
            return
        back = {slot: self._workshop.serve_again(before[slot]) for slot in fresh if slot in before}
        for served in back.values():
            served.worker.listen()
        rest = {slot: served for slot, served in self.served.items() if slot not in fresh}
        await self._replace({**rest, **back}, {})
        await self._return(back, soon=soon)

    async def _return(self, coming: dict[str, Served], *, soon: bool = False) -> None:
        """Start what was away; `soon`: without waiting for it.

        What does not come at once is tried until it does.
        """
        absent = [served for served in coming.values() if not self._is_in(served)]
        await _stop_all([served.worker for served in absent])
        for served in coming.values():
            if served in absent:
                continue
            failed = None if soon else await served.worker.start()
            if failed is not None:
                _log.error("%s does not come back: %s", served.spec.slot, failed.detail)
            if soon or failed is not None:
                served.worker.keep()

    async def _replace(self, served: dict[str, Served], fresh: dict[str, Served]) -> bool:
        """Change the routes to `served` in one step, then drain and end what is not in it.

        False, with the old routes restored, if the front did not take them. It goes to its end
        even if cancelled: half a swap would leave a worker without an owner.
        """
        assert self.front is not None
        before, self.served = self.served, served
        seq = self._send()
        return await finish(self._conclude(self.front, seq, before, fresh))

    async def _conclude(
        self, front: FrontProcess, seq: int, before: dict[str, Served], fresh: dict[str, Served]
    ) -> bool:
        if not await front.in_force(seq, timeout_s=ROUTE_S) and fresh:
            self.served = before
            self._send()
            return False
        leaving = [old.worker for slot, old in before.items() if self.served.get(slot) is not old]
        await asyncio.gather(*(self._drain(front, worker) for worker in leaving))
        await _stop_all(leaving)
        return True

    async def _drain(self, front: FrontProcess, worker: WorkerProcess) -> None:
        if not await front.drained(worker.id, timeout_s=self._drain_s):
            _log.warning("%s@%d: not drained in time", worker.spec.model, worker.spec.version)

    def _serves(self, spec: ModelSpec) -> bool:
        served = self.served.get(spec.slot)
        return served is not None and served.spec == spec and served.worker.pid is not None

    def _is_in(self, served: Served) -> bool:
        return self.served.get(served.spec.slot) is served


def _freed(before: dict[str, Served], after: dict[str, Served]) -> set[str]:
    """The accelerators of workers that left: some can be held by one process at a time."""
    return {
        old.worker.accelerator for slot, old in before.items() if after.get(slot) is not old
    } - ON_THE_PROCESSOR


async def _start_all(fresh: Iterable[Served], *, yields: bool = False) -> Failed | None:
    """None once every worker is ready, else the first failure."""
    fresh = tuple(fresh)
    outcomes = await asyncio.gather(*(served.worker.start(yields=yields) for served in fresh))
    for served, failed in zip(fresh, outcomes, strict=True):
        if failed is not None:
            spec = served.spec
            words = f"{spec.slot} {spec.model}@{spec.version}: {failed.reason}: {failed.detail}"
            return Failed(Reason.ACTIVATION_FAILED, words)
    return None


async def _stop_all(workers: Iterable[WorkerProcess]) -> None:
    await asyncio.gather(*(worker.stop() for worker in workers))
