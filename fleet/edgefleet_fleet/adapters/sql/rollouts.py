"""Rollouts and their devices in the store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from edgefleet_contract import codec
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.orders import Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.adapters.sql.documents import insert_once, load
from edgefleet_fleet.adapters.sql.members import member_of
from edgefleet_fleet.adapters.sql.roster import SqlRoster
from edgefleet_fleet.adapters.sql.tables import block as blocks
from edgefleet_fleet.adapters.sql.tables import rollout as table
from edgefleet_fleet.adapters.sql.tables import rollout_device as members
from edgefleet_fleet.desired import SlotAsk
from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.observations import Told
from edgefleet_fleet.pace import FULL, Bucket
from edgefleet_fleet.records import MemberRow, RolloutRow
from edgefleet_fleet.rollout import Rollout
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Cause, Ending, State, WaveState
from edgefleet_fleet.roster import OPEN, Outcome, Tally

_CAN_SAY: Final = [outcome.value for outcome in (*OPEN, Outcome.GOOD, Outcome.HELD)]


@dataclass(frozen=True, slots=True)
class Progress:
    """The part of a machine that no column shows, as JSON; `ends` are numbers of 65 bits."""

    wave_state: WaveState = WaveState.PENDING
    ending: Ending | None = None
    soak_until: int = 0
    quiet_since: int = 0
    ends: tuple[str, ...] = ()
    tally: dict[str, int] = field(default_factory=dict)
    excused: dict[str, int] = field(default_factory=dict)
    bucket: Bucket = FULL
    swept_at: int = 0
    blocked: tuple[str, ...] = ()
    evidence: dict[str, Evidence] = field(default_factory=dict)
    approved_by: str = ""
    retry_at: int = 0


class Rollouts:
    """The rollouts, by number; the newest has the highest."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def next_number(self) -> int:
        """The number of the next rollout."""
        highest = self._connection.execute(sa.select(sa.func.max(table.c.number))).scalar()
        return int(highest or 0) + 1

    def add(self, row: RolloutRow, machine: Rollout) -> None:
        """Keep a new rollout."""
        values = {
            "id": row.id,
            "number": row.number,
            "created_at": row.created_at,
            "created_by": row.created_by,
            "to": row.to,
            "allow_downgrade": row.allow_downgrade,
            "slot": row.target.slot,
            "target": codec.encode(row.target),
            "policy": codec.encode(row.policy),
            "plan": codec.encode(machine.plan),
            **_head(machine),
        }
        self._connection.execute(table.insert().values(values))

    def get(self, rollout: str) -> RolloutRow | None:
        """The rollout of this id."""
        row = self._connection.execute(sa.select(table).where(table.c.id == rollout)).first()
        return _rollout(row) if row is not None else None

    def list(self, *, limit: int = 200) -> tuple[RolloutRow, ...]:
        """The newest rollouts, newest first."""
        query = sa.select(table).order_by(table.c.number.desc()).limit(limit)
        return tuple(_rollout(row) for row in self._connection.execute(query))

    def after(self, number: int, *, limit: int) -> tuple[RolloutRow, ...]:
        """The rollouts behind a number, oldest first."""
        query = sa.select(table).where(table.c.number > number).order_by(table.c.number)
        return tuple(_rollout(row) for row in self._connection.execute(query.limit(limit)))

    def page(
        self,
        *,
        limit: int,
        before: int | None = None,
        state: State | None = None,
        model: str = "",
        since: int = 0,
    ) -> tuple[RolloutRow, ...]:
        """Rollouts, newest first: below a number, in a state, of a model, since a time."""
        query = sa.select(table).where(table.c.created_at >= since)
        if before is not None:
            query = query.where(table.c.number < before)
        if state is not None:
            query = query.where(table.c.state == state.value)
        if model:
            query = query.where(table.c.target["model"].as_string() == model)
        rows = self._connection.execute(query.order_by(table.c.number.desc()).limit(limit))
        return tuple(_rollout(row) for row in rows)

    def in_states(self, states: Iterable[State]) -> tuple[RolloutRow, ...]:
        """The rollouts in these states, oldest first."""
        query = sa.select(table).where(table.c.state.in_([state.value for state in states]))
        rows = self._connection.execute(query.order_by(table.c.number))
        return tuple(_rollout(row) for row in rows)

    def machine(self, rollout: str) -> Rollout:
        """The state machine of a rollout, as it was kept.

        Raises:
            Malformed: this release cannot read its plan.
        """
        query = sa.select(table).where(table.c.id == rollout)
        row = self._connection.execute(query).one()
        plan = codec.decode(Plan, row.plan, what=f"plan of {rollout}")
        at = load(Progress, row.progress)
        return Rollout(
            plan=plan,
            state=State(row.state),
            cause=Cause(row.cause) if row.cause else None,
            why=row.why,
            ending=at.ending,
            wave=row.wave,
            wave_state=at.wave_state,
            soak_until=at.soak_until,
            quiet_since=at.quiet_since,
            ends=tuple(int(end) for end in at.ends),
            tally=Tally.of_words(at.tally),
            excused=Tally.of_words(at.excused),
            bucket=at.bucket,
            swept_at=at.swept_at,
            blocked=at.blocked,
            evidence=at.evidence,
            approved_by=at.approved_by,
            retry_at=at.retry_at,
        )

    def keep(self, rollout: str, old: Rollout, new: Rollout, *, at: int) -> None:
        """Write what a step of the machine changed; its devices are the roster's."""
        if old == new:
            return
        values = _head(new)
        if new.state.is_over and not old.state.is_over:
            values["ended_at"] = at
        self._connection.execute(table.update().where(table.c.id == rollout).values(values))

    def pause_unread(self, rollout: str, why: str) -> None:
        """Pause a rollout whose plan cannot be read."""
        values = {"state": State.PAUSED.value, "cause": Cause.GATE.value, "why": why}
        self._connection.execute(table.update().where(table.c.id == rollout).values(values))

    def roster(self, rollout: str, *, at: int) -> SqlRoster:
        """The devices of a rollout."""
        return SqlRoster(self._connection, rollout, at=at)

    def told(self, rollout: str, device: str) -> Told:
        """What a device told of the model so far."""
        query = sa.select(members.c.told).where(self._is(rollout, device))
        found = self._connection.execute(query).scalar()
        return load(Told, found) if found is not None else Told()

    def set_told(self, rollout: str, device: str, told: Told) -> None:
        """Keep what a device told."""
        values = {"told": codec.encode(told)}
        self._connection.execute(members.update().where(self._is(rollout, device)).values(values))

    def block(self, bundle: Digest, kind: str, rollout: str, *, at: int) -> None:
        """Remember that a bundle is not for a hardware class."""
        values = {"bundle": bundle, "kind": kind, "rollout": rollout, "at": at}
        insert_once(self._connection, blocks, values)

    def blocked(self, bundle: Digest) -> tuple[str, ...]:
        """The hardware classes that a bundle is not for."""
        query = sa.select(blocks.c.kind).where(blocks.c.bundle == bundle).order_by(blocks.c.kind)
        return tuple(row.kind for row in self._connection.execute(query))

    def unblock(self, bundle: Digest) -> None:
        """Forget on which hardware classes a bundle failed: it is tried again."""
        self._connection.execute(blocks.delete().where(blocks.c.bundle == bundle))

    def note_order(self, rollout: str, device: str, seq: int, *, at: int) -> None:
        """Note which order asks a device."""
        values = {"order_seq": seq, "updated_at": at}
        self._connection.execute(members.update().where(self._is(rollout, device)).values(values))

    def note_ask(self, rollout: str, device: str) -> None:
        """Note that a device is asked, perhaps again: it has said nothing of that yet."""
        values = {"phase": None, "reason": None, "detail": ""}
        self._connection.execute(members.update().where(self._is(rollout, device)).values(values))

    def note_answered(self, rollout: str, device: str, seq: int) -> None:
        """Note that orders up to this number ask a device for this rollout no more."""
        values = {"answered_seq": seq}
        self._connection.execute(members.update().where(self._is(rollout, device)).values(values))

    def is_answered(self, rollout: str, device: str, seq: int) -> bool:
        """Whether an order asks a device for this rollout no more."""
        query = sa.select(members.c.answered_seq).where(self._is(rollout, device))
        return seq <= int(self._connection.execute(query).scalar() or 0)

    def note_phase(
        self,
        rollout: str,
        device: str,
        phase: Phase,
        reason: Reason | None,
        detail: str,
        *,
        at: int,
    ) -> None:
        """Note how far a device that was asked is."""
        values = {
            "phase": phase.value,
            "reason": reason.value if reason else None,
            "detail": detail[:500],
            "updated_at": at,
        }
        still_asked = sa.and_(self._is(rollout, device), members.c.outcome.in_(_CAN_SAY))
        self._connection.execute(members.update().where(still_asked).values(values))

    def endings(self, rollout: str) -> tuple[tuple[Outcome, Reason | None, int], ...]:
        """How many of its devices have each outcome, by reason; counted by the data base."""
        by = (members.c.outcome, members.c.reason)
        query = sa.select(*by, sa.func.count()).where(members.c.rollout == rollout).group_by(*by)
        return tuple(
            (Outcome(outcome), Reason(reason) if reason else None, count)
            for outcome, reason, count in self._connection.execute(query)
        )

    def of_device(self, device: str) -> tuple[tuple[RolloutRow, MemberRow], ...]:
        """The rollouts that a device is or was part of, oldest first."""
        mine = {
            row.rollout: member_of(row)
            for row in self._connection.execute(
                sa.select(members).where(members.c.device == device)
            )
        }
        query = sa.select(table).where(table.c.id.in_(list(mine))).order_by(table.c.number)
        rows = (_rollout(row) for row in self._connection.execute(query))
        return tuple((row, mine[row.id]) for row in rows)

    def asks_of(self, device: str) -> tuple[SlotAsk, ...]:
        """What rollouts asked of a device, oldest first."""
        return tuple(
            SlotAsk(row.id, row.target, member.outcome, row.allow_downgrade, row.policy)
            for row, member in self.of_device(device)
            if member.outcome not in (Outcome.PENDING, Outcome.BLOCKED)
        )

    def drop_device(self, device: str) -> None:
        """Take a device out of all rollouts."""
        self._connection.execute(members.delete().where(members.c.device == device))

    @staticmethod
    def _is(rollout: str, device: str) -> Any:
        return sa.and_(members.c.rollout == rollout, members.c.device == device)


def _head(machine: Rollout) -> dict[str, Any]:
    progress = Progress(
        wave_state=machine.wave_state,
        ending=machine.ending,
        soak_until=machine.soak_until,
        quiet_since=machine.quiet_since,
        ends=tuple(str(end) for end in machine.ends),
        tally=machine.tally.words(),
        excused=machine.excused.words(),
        bucket=machine.bucket,
        swept_at=machine.swept_at,
        blocked=machine.blocked,
        evidence=dict(machine.evidence),
        approved_by=machine.approved_by,
        retry_at=machine.retry_at,
    )
    return {
        "state": machine.state.value,
        "cause": machine.cause.value if machine.cause else None,
        "why": machine.why,
        "wave": machine.wave,
        "progress": codec.encode(progress),
    }


def _rollout(row: Any) -> RolloutRow:
    try:
        plan = codec.decode(Plan, row.plan, what=f"plan of {row.id}")
    except Malformed:
        plan = None
    return RolloutRow(
        id=row.id,
        number=row.number,
        created_at=row.created_at,
        created_by=row.created_by,
        target=load(Target, row.target),
        to=row.to,
        policy=load(Policy, row.policy),
        allow_downgrade=row.allow_downgrade,
        plan=plan,
        state=State(row.state),
        cause=Cause(row.cause) if row.cause else None,
        why=row.why,
        wave=row.wave,
        ended_at=row.ended_at,
    )
