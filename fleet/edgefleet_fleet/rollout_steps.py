"""One step of a rollout's machine: read, stepped, kept, and its commands carried out.

What it commands concerns devices; these are handed back, and looked at once at the end
(`orders.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from edgefleet_contract.errors import Malformed
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as events
from edgefleet_fleet import sealings
from edgefleet_fleet.device_traits import kind_of, traits_of
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.happenings import Happening, HistoryKind
from edgefleet_fleet.orders import Orders
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import MemberRow, RolloutRow
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.roster import Outcome
from edgefleet_fleet.rounds import drive
from edgefleet_fleet.work import Room, Work

log = logging.getLogger("edgefleet.rollout")

ALIVE: Final = tuple(
    state for state in State if state.is_waiting or state in (State.RUNNING, State.PAUSED)
)
_SAID: Final = (
    *(events.Submitted, events.Approved, events.Denied, events.Started),
    *(events.Promoted, events.Paused, events.Resumed, events.Aborted),
)


class Steps:
    """The machines of all rollouts; `orders` are those of the devices that their steps concern."""

    def __init__(self, room: Room, publications: Publications) -> None:
        self.orders = Orders(room, publications, self._ran_already)

    def take(self, work: Work, rollout: str, event: events.Event) -> None:
        """Step a rollout, and give the devices that this concerns the orders that they should have.

        Raises:
            NotInTable, NotAllowed: as the machine does; nothing changed.
        """
        self.orders.settle(work, self.apply(work, rollout, event))

    def machine(self, work: Work, rollout: str) -> machine.Rollout | None:
        """A machine as it is kept; one that cannot be read is paused, and decides nothing."""
        try:
            return work.tx.rollouts.machine(rollout)
        except Malformed as error:
            row = work.tx.rollouts.get(rollout)
            if row is not None and not row.state.is_over and row.state is not State.PAUSED:
                log.error("rollout %s is paused: %s", rollout, error.message)
                work.tx.rollouts.pause_unread(rollout, error.message)
                work.changed("rollout", rollout)
            return None

    def apply(self, work: Work, rollout: str, event: events.Event) -> set[str]:
        """Step a rollout and keep it; the devices that are to be looked at."""
        old = self.machine(work, rollout)
        if old is None:
            return set()
        replaced: set[str] = set()
        roster = work.tx.rollouts.roster(rollout, at=work.now)
        new, commands = drive(
            *(old, roster, event),
            now=work.now,
            enlist=lambda: self._enlist(work, rollout, replaced),
        )
        work.tx.rollouts.keep(rollout, old, new, at=work.now)
        before, after = _standing(old), _standing(new)
        if before != after:
            if not isinstance(event, _SAID):  # what a person did is recorded as such
                work.record(f"rollout.{new.state}", rollout, _how_it_stands(new))
            log.info("rollout %s: %s -> %s%s", rollout, before, after, new.why and f": {new.why}")
        if before != after or commands or not isinstance(event, events.Tick):
            work.changed("rollout", rollout)
        return replaced | self._carry_out(work, rollout, commands)

    def _enlist(self, work: Work, rollout: str, replaced: set[str]) -> events.Enlisted:
        """The devices that a rollout means when it begins; what it replaces ends."""
        row = work.tx.rollouts.get(rollout)
        assert row is not None
        for other in work.tx.rollouts.in_states(ALIVE):
            is_older = other.number < row.number and other.target.slot == row.target.slot
            if is_older and row.to in ("all", other.to):
                replaced |= self.apply(work, other.id, events.Replaced())
        wanted = parse_filter(row.to)
        found = [d for d in work.tx.devices.list() if wanted.matches(traits_of(d))]
        blocked = work.tx.rollouts.blocked(row.target.bundle_sha256)
        return events.Enlisted({device.id: kind_of(device) for device in found}, blocked)

    def _carry_out(self, work: Work, rollout: str, commands: Iterable[events.Command]) -> set[str]:
        row = work.tx.rollouts.get(rollout)
        assert row is not None
        dirty: set[str] = set()
        for command in commands:
            match command:
                case events.Withdraw(device):
                    dirty.add(device)
                case events.PutOff(device):
                    dirty.add(device)
                    self._put_off(work, rollout, device)
                case events.Ask(device):
                    dirty |= {device} | self._ask(work, row, device)
                case events.Block(kind):
                    bundle = row.target.bundle_sha256
                    work.tx.rollouts.block(bundle, kind, rollout, at=work.now)
                    work.record("rollout.block", rollout, kind)
                case events.Enlist():
                    pass  # `drive` did
        return dirty

    def _ran_already(self, work: Work, rollout: str, device: str) -> set[str]:
        return self.apply(work, rollout, events.Ended(device, Outcome.GOOD))

    @staticmethod
    def _put_off(work: Work, rollout: str, device: str) -> None:
        found = work.tx.devices.get(device)
        member = work.tx.rollouts.roster(rollout, at=work.now).get(device)
        if found is None or member is None:
            return
        work.tx.rollouts.note_answered(rollout, device, found.last_seq)
        words = f"{rollout}: try {member.tries} to fetch it failed"
        wait = f"asked again in {member.retry_at - work.now} s"
        work.happened(device, HistoryKind.ROLLOUT, Happening("retrying", f"{words}, {wait}"))

    def _ask(self, work: Work, row: RolloutRow, device: str) -> set[str]:
        if row.target.sealed is not None and not self._has_seal_key(work, device):
            return self._refuse(work, row.id, device)
        dirty: set[str] = set()
        for other, member in work.tx.rollouts.of_device(device):
            if other.id == row.id:
                self._note_again(work, member)
            elif other.number < row.number and other.target.slot == row.target.slot:
                dirty |= self.apply(work, other.id, events.Taken(device))
        return dirty

    @staticmethod
    def _note_again(work: Work, member: MemberRow) -> None:
        """What a device said when it was asked before is no word on being asked now."""
        if member.phase is not None:
            work.tx.rollouts.note_ask(member.rollout, member.device)
        if member.tries:
            told = Happening("asked again", f"{member.rollout}: try {member.tries + 1}")
            work.happened(member.device, HistoryKind.ROLLOUT, told)

    @staticmethod
    def _has_seal_key(work: Work, device: str) -> bool:
        found = work.tx.devices.get(device)
        return found is not None and bool(found.seal_key)

    def _refuse(self, work: Work, rollout: str, device: str) -> set[str]:
        """Answer for a device that nothing can be sealed for: a sealed model is never sent bare."""
        work.tx.rollouts.note_phase(
            rollout,
            device,
            Phase.REJECTED,
            Reason.UNSEALING_FAILED,
            sealings.NO_KEY,
            at=work.now,
        )
        return self.apply(work, rollout, events.Ended(device, Outcome.BAD))


def _how_it_stands(found: machine.Rollout) -> str:
    cause = f" ({found.cause})" if found.cause else ""
    why = f": {found.why}" if found.why else ""
    return f"wave {found.wave + 1} {found.wave_state}{cause}{why}"


def _standing(found: machine.Rollout) -> str:
    cause = f" ({found.cause})" if found.cause else ""
    return f"{found.state}{cause} wave {found.wave + 1} {found.wave_state}"
