"""Rollouts and their devices in the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from edgefleet_contract import codec
from edgefleet_contract.messages import Phase, Target
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.adapters.sql.documents import load
from edgefleet_fleet.adapters.sql.tables import rollout as table
from edgefleet_fleet.adapters.sql.tables import rollout_device as members
from edgefleet_fleet.cohort import check_waves
from edgefleet_fleet.desired import SlotAsk
from edgefleet_fleet.gates import GatePolicy
from edgefleet_fleet.records import MemberRow, RolloutRow
from edgefleet_fleet.rollout import Cause, Member, Outcome, Plan, Rollout, State


class Rollouts:
    """The rollouts, by number; the newest has the highest."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def next_number(self) -> int:
        """The number of the next rollout."""
        highest = self._connection.execute(sa.select(sa.func.max(table.c.number))).scalar()
        return int(highest or 0) + 1

    def add(self, row: RolloutRow) -> None:
        """Keep a new rollout."""
        values = dataclasses.asdict(row) | {
            "slot": row.target.slot,
            "target": codec.encode(row.target),
            "waves": list(row.waves),
            "canaries": list(row.canaries),
            "policy": codec.encode(row.policy),
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

    def machine(self, row: RolloutRow) -> Rollout:
        """The state machine of a rollout, as it was kept."""
        query = sa.select(members.c.device, members.c.wave, members.c.outcome)
        rows = self._connection.execute(query.where(members.c.rollout == row.id))
        found = {item.device: Member(item.wave, Outcome(item.outcome)) for item in rows}
        gate = GatePolicy(max_failures=row.max_failures)
        plan = Plan(row.salt, row.waves, frozenset(row.canaries), gate)
        return Rollout(plan, row.state, row.cause, row.wave, row.excused, found)

    def keep(self, rollout: str, old: Rollout | None, new: Rollout, *, at: int) -> None:
        """Write what a step of the machine changed."""
        if old is None or _head(old) != _head(new):
            values: dict[str, Any] = {
                "state": new.state.value,
                "cause": new.cause.value if new.cause else None,
                "wave": new.wave,
                "excused": new.excused,
            }
            if new.state.is_over:
                values["ended_at"] = at
            self._connection.execute(table.update().where(table.c.id == rollout).values(values))
        before: Mapping[str, Member] = old.members if old is not None else {}
        for device, member in new.members.items():
            if device not in before:
                self._connection.execute(
                    members.insert().values(
                        rollout=rollout,
                        device=device,
                        wave=member.wave,
                        outcome=member.outcome.value,
                        detail="",
                        updated_at=at,
                    )
                )
            elif before[device] != member:
                values = {"outcome": member.outcome.value, "updated_at": at}
                self._connection.execute(
                    members.update().where(self._is(rollout, device)).values(values)
                )

    def note_order(self, rollout: str, device: str, seq: int, *, at: int) -> None:
        """Note which order asks a device."""
        values = {"order_seq": seq, "updated_at": at}
        self._connection.execute(members.update().where(self._is(rollout, device)).values(values))

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
        still_asked = sa.and_(self._is(rollout, device), members.c.outcome == Outcome.ASKED.value)
        self._connection.execute(members.update().where(still_asked).values(values))

    def members(self, rollout: str) -> tuple[MemberRow, ...]:
        """The devices of a rollout, by wave and name."""
        query = sa.select(members).where(members.c.rollout == rollout)
        rows = self._connection.execute(query.order_by(members.c.wave, members.c.device))
        return tuple(_member(row) for row in rows)

    def of_device(self, device: str) -> tuple[tuple[RolloutRow, MemberRow], ...]:
        """The rollouts that a device is or was part of, oldest first."""
        mine = {
            row.rollout: _member(row)
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
            if member.outcome is not Outcome.PENDING
        )

    def drop_device(self, device: str) -> None:
        """Take a device out of all rollouts."""
        self._connection.execute(members.delete().where(members.c.device == device))

    @staticmethod
    def _is(rollout: str, device: str) -> Any:
        return sa.and_(members.c.rollout == rollout, members.c.device == device)


def _head(rollout: Rollout) -> tuple[object, ...]:
    return (rollout.state, rollout.cause, rollout.wave, rollout.excused)


def _rollout(row: Any) -> RolloutRow:
    return RolloutRow(
        id=row.id,
        number=row.number,
        created_at=row.created_at,
        created_by=row.created_by,
        target=load(Target, row.target),
        to=row.to,
        salt=row.salt,
        waves=check_waves(tuple(row.waves)),
        canaries=tuple(row.canaries),
        max_failures=row.max_failures,
        policy=load(Policy, row.policy),
        allow_downgrade=row.allow_downgrade,
        state=State(row.state),
        cause=Cause(row.cause) if row.cause else None,
        wave=row.wave,
        excused=row.excused,
        ended_at=row.ended_at,
    )


def _member(row: Any) -> MemberRow:
    return MemberRow(
        rollout=row.rollout,
        device=row.device,
        wave=row.wave,
        outcome=Outcome(row.outcome),
        order_seq=row.order_seq,
        phase=Phase(row.phase) if row.phase else None,
        reason=Reason(row.reason) if row.reason else None,
        detail=row.detail,
        updated_at=row.updated_at,
    )
