"""The devices of one rollout in the store: what the machine looks up, by index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.tables import device as devices
from edgefleet_fleet.adapters.sql.tables import rollout_device as table
from edgefleet_fleet.roster import Member, Outcome


class SqlRoster:
    """`roster.Roster` over one transaction."""

    def __init__(self, connection: sa.Connection, rollout: str, *, at: int) -> None:
        self._connection = connection
        self._rollout = rollout
        self._at = at
        self._mine = table.c.rollout == rollout

    def get(self, device: str) -> Member | None:
        """See `Roster`."""
        query = sa.select(table).where(self._mine, table.c.device == device)
        row = self._connection.execute(query).first()
        return _member(row) if row is not None else None

    def pending(self, wave: int, limit: int) -> tuple[str, ...]:
        """See `Roster`."""
        waits = table.c.outcome == Outcome.PENDING.value
        query = sa.select(table.c.device).where(self._mine, waits, table.c.wave <= wave)
        query = query.order_by(table.c.wave, table.c.place, table.c.device).limit(limit)
        return tuple(row.device for row in self._connection.execute(query))

    def having(self, outcomes: Iterable[Outcome], *, kind: str | None = None) -> tuple[str, ...]:
        """See `Roster`."""
        query = sa.select(table.c.device).where(
            self._mine, table.c.outcome.in_([outcome.value for outcome in outcomes])
        )
        if kind is not None:
            query = query.where(table.c.kind == kind)
        rows = self._connection.execute(query.order_by(table.c.device))
        return tuple(row.device for row in rows)

    def asked_since(self, moment: int) -> int:
        """See `Roster`."""
        asked = sa.and_(table.c.outcome == Outcome.ASKED.value, table.c.asked_at >= moment)
        query = sa.select(sa.func.count()).select_from(table).where(self._mine, asked)
        return int(self._connection.execute(query).scalar_one())

    def silent(self, before: int, *, committed: bool) -> tuple[str, ...]:
        """See `Roster`. One that serves is not silent while the broker holds its connection."""
        active = table.c.outcome == Outcome.ACTIVE.value
        gone = sa.and_(table.c.outcome == Outcome.GOOD.value, sa.not_(devices.c.online))
        query = (
            sa.select(table.c.device)
            .join(devices, devices.c.id == table.c.device)
            .where(
                self._mine,
                sa.or_(active, gone) if committed else active,
                table.c.heard_at < before,
                devices.c.seen_at < before,
            )
            .order_by(table.c.device)
        )
        return tuple(row.device for row in self._connection.execute(query))

    def retrying(self, limit: int) -> tuple[tuple[str, int], ...]:
        """See `Roster`."""
        waits = table.c.outcome == Outcome.RETRYING.value
        query = sa.select(table.c.device, table.c.retry_at).where(self._mine, waits)
        query = query.order_by(table.c.retry_at, table.c.device).limit(limit)
        return tuple((row.device, row.retry_at) for row in self._connection.execute(query))

    def write(self, changes: Mapping[str, Member]) -> None:
        """See `Roster`."""
        new: list[dict[str, Any]] = []
        for device, member in changes.items():
            values = {
                "wave": member.wave,
                "place": member.place,
                "kind": member.kind,
                "outcome": member.outcome.value,
                "asked_at": member.asked_at,
                "heard_at": member.heard_at,
                "failed_selftest": member.failed_selftest,
                "tries": member.tries,
                "retry_at": member.retry_at,
                "updated_at": self._at,
            }
            if self._is_there(device):
                here = sa.and_(self._mine, table.c.device == device)
                self._connection.execute(table.update().where(here).values(values))
            else:
                new.append({"rollout": self._rollout, "device": device, "detail": "", **values})
        if new:
            self._connection.execute(table.insert(), new)

    def _is_there(self, device: str) -> bool:
        query = sa.select(table.c.device).where(self._mine, table.c.device == device)
        return self._connection.execute(query).first() is not None


def _member(row: Any) -> Member:
    return Member(
        wave=row.wave,
        place=row.place,
        kind=row.kind,
        outcome=Outcome(row.outcome),
        asked_at=row.asked_at,
        heard_at=row.heard_at,
        failed_selftest=row.failed_selftest,
        tries=row.tries,
        retry_at=row.retry_at,
    )
