"""Rollouts and the orders that follow from them: what the rest of the service asks for.

Every change of a rollout is a step (`rollout_steps.py`); every device that steps concern is looked
at once at the end, and has the order that it should have (`orders.py`).
"""

from __future__ import annotations

import logging
from typing import Final

from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Event, Reported
from edgefleet_contract.telemetry import ModelTelemetry
from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as events
from edgefleet_fleet.desired import runs
from edgefleet_fleet.device_traits import kind_of, traits_of
from edgefleet_fleet.endings import ON_THE_WAY, SELFTEST, ending_of
from edgefleet_fleet.errors import Conflict, Denied, NotFound
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.model_watch import ModelWatch
from edgefleet_fleet.order_upkeep import OrderUpkeep
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import Device, MemberRow
from edgefleet_fleet.rehearsal import Visit
from edgefleet_fleet.rollout_states import NotInTable, State
from edgefleet_fleet.rollout_steps import ALIVE, Steps
from edgefleet_fleet.rollout_verbs import Verb, event_of
from edgefleet_fleet.roster import Outcome, step_of
from edgefleet_fleet.rounds import wake_at
from edgefleet_fleet.wishes import Wish, Wishes
from edgefleet_fleet.work import Actor, Room, Work

log = logging.getLogger("edgefleet.rollout")

_TICKS: Final = (*ALIVE, State.COMPLETED, State.ABORTING)
_SETS_LEVEL: Final = tuple(state for state in State if state.sets_level)
_NOT_ASKED: Final = (Outcome.PENDING, Outcome.BLOCKED)


class Deployments:
    """Rollouts, and the orders that follow from them."""

    def __init__(self, room: Room, publications: Publications) -> None:
        self._room = room
        self._steps = Steps(room, publications)
        self._watch = ModelWatch(room, self._learned)
        self._wishes = Wishes(room, publications, self._steps, self._watch)
        self.upkeep = OrderUpkeep(room, publications, self._steps.orders)

    def create(self, wish: Wish, *, actor: Actor) -> str:
        """Begin a rollout; its id. Raises as `Wishes.create`."""
        return self._wishes.create(wish, actor=actor)

    def rehearse(self, wish: Wish) -> tuple[Visit, ...]:
        """Who would get it, and when at the earliest; nothing is kept. Raises as `create`."""
        return self._wishes.rehearse(wish)

    def steer(self, rollout: str, verb: Verb, *, actor: Actor) -> None:
        """Do what a person says to a rollout.

        Raises:
            NotFound: no such rollout.
            Conflict: it is not possible now.
            Denied: it needs another person.
        """
        event = event_of(verb, actor.who)
        with self._room.work(actor) as work:
            if work.tx.rollouts.get(rollout) is None:
                raise NotFound(f"there is no rollout {rollout!r}", hint="fleet rollouts list")
            try:
                self._steps.take(work, rollout, event)
            except NotInTable as error:
                raise Conflict(f"rollout {rollout}: {error}") from None
            except machine.NotAllowed as error:
                raise Denied(f"rollout {rollout}: {error}") from None
            work.record(f"rollout.{type(event).__name__.lower()}", rollout, _how(event))

    def label(self, rollout: str, device: str, *, right: int, wrong: int, actor: Actor) -> None:
        """Take what became known of a device's answers: so many were right, so many wrong.

        Raises:
            NotFound: there is no such rollout, or the device is not part of it.
        """
        with self._room.work(actor) as work:
            member = work.tx.rollouts.roster(rollout, at=work.now).get(device)
            if member is None:
                raise NotFound(f"{device!r} is no device of rollout {rollout!r}")
            more = Evidence(labelled=right + wrong, right=right)
            self._steps.take(work, rollout, events.Observed(member.kind, more))
            work.record("rollout.label", rollout, f"{device}: {right} right, {wrong} wrong")

    def tick(self) -> int:
        """Let time go on for every rollout that waits for it; when to call again, by the clock.

        0: nothing waits.
        """
        with self._room.work() as work:
            dirty: set[str] = set()
            due = 0
            for row in work.tx.rollouts.in_states(_TICKS):
                dirty |= self._steps.apply(work, row.id, events.Tick())
                found = self._steps.machine(work, row.id)
                moment = wake_at(found, work.now) if found is not None else 0
                due = min(due or moment, moment or due)
            self._steps.orders.settle(work, dirty)
            return due

    def observe(self, work: Work, sample: ModelTelemetry) -> None:
        """Take what a device tells of its models as evidence for the rollouts that asked for it."""
        self._watch.observe(work, sample)

    def compare(self, work: Work, event: Event) -> None:
        """Take a shadow's report as such evidence."""
        self._watch.compare(work, event)

    def _learned(self, work: Work, rollout: str, member: MemberRow, more: Evidence) -> None:
        self._steps.take(work, rollout, events.Observed(member.kind, more))

    def welcome(
        self,
        work: Work,
        device: str,
        capabilities: Capabilities | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Let a device that enrolled, or changed, into the rollouts that mean it.

        `again` signs an order in any case.
        """
        found = work.tx.devices.get(device)
        if found is None or not found.is_active:
            return
        traits = traits_of(found, capabilities)
        dirty: set[str] = set()
        settled: set[str] = set()
        mine = {row.id: member for row, member in work.tx.rollouts.of_device(device)}
        for row in reversed(work.tx.rollouts.in_states(_SETS_LEVEL)):
            slot = row.target.slot
            if slot in settled:
                continue
            if row.id not in mine and parse_filter(row.to).matches(traits):
                dirty |= self._steps.apply(
                    work, row.id, events.Joined(device, kind_of(found, capabilities))
                )
                mine = {known.id: member for known, member in work.tx.rollouts.of_device(device)}
            if row.id in mine and mine[row.id].outcome not in _NOT_ASKED:
                settled.add(slot)
        self._steps.orders.settle(work, dirty | ({device} if again else set()), again=again)

    def part_from(self, work: Work, device: str) -> None:
        """Take a device out of every rollout, so that none waits for it."""
        dirty: set[str] = set()
        for row, _member in work.tx.rollouts.of_device(device):
            dirty |= self._steps.apply(work, row.id, events.Left(device))
        work.tx.rollouts.drop_device(device)
        work.cleared.append(device)
        self._steps.orders.settle(work, dirty - {device})

    def progress(
        self,
        work: Work,
        device: str,
        *,
        seq: int,
        phase: Phase,
        reason: Reason | None,
        detail: str,
    ) -> None:
        """Take what a device said about an order."""
        order = work.tx.orders.get(device, seq)
        if order is None:
            return
        happened = _event_of(device, phase, reason)
        dirty: set[str] = set()
        for rollout in order.asks:
            if work.tx.rollouts.is_answered(rollout, device, seq):
                continue  # it was put off since, and this is of the try before
            work.tx.rollouts.note_phase(rollout, device, phase, reason, detail, at=work.now)
            work.changed("rollout", rollout)
            if happened is not None:
                dirty |= self._steps.apply(work, rollout, happened)
        self._steps.orders.settle(work, dirty)

    def catch_up(self, work: Work, device: Device, reported: Reported) -> None:
        """Hold the full state of a device against what it was asked.

        A device that follows a higher number than was ever given here (the fleet's data base was
        restored from a backup) gets its level again, above that number.
        """
        if reported.order_seq > device.last_seq:
            log.warning("%s follows order %d, unknown here", device.id, reported.order_seq)
            work.tx.devices.set_last_seq(device.id, reported.order_seq)
            self._steps.orders.settle(work, {device.id}, again=True)
            return
        self._welcome_back(work, device.id, reported)
        order = work.tx.orders.get(device.id, reported.order_seq)
        rests = reported.phase is Phase.IDLE and order is not None
        done = rests and all(runs(reported, target) for target in order.targets) if order else False
        self.progress(
            work,
            device.id,
            seq=reported.order_seq,
            phase=Phase.COMMITTED if done else reported.phase,
            reason=reported.reason,
            detail=reported.detail,
        )

    def _welcome_back(self, work: Work, device: str, reported: Reported) -> None:
        """Note that a device no longer runs what it was told to leave."""
        for row, member in work.tx.rollouts.of_device(device):
            if member.outcome is Outcome.REVERTING and not runs(reported, row.target):
                self._steps.take(work, row.id, events.Back(device))


def _event_of(device: str, phase: Phase, reason: Reason | None) -> events.Event | None:
    """What a phase that a device reports is to a rollout that asked it."""
    ending = ending_of(phase, reason)
    if ending is not None:
        return events.Ended(
            *(device, ending),
            failed_selftest=reason in SELFTEST,
            may_retry=reason in ON_THE_WAY,
        )
    at_it = step_of(phase)
    return events.Answered(device, at_it) if at_it is not None else None


def _how(event: events.Event) -> str:
    return event.ending.value if isinstance(event, events.Aborted) else ""
