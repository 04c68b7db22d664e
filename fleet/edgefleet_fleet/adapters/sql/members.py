"""The devices of rollouts as people look at them: in pages, and counted by wave."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.adapters.sql.tables import rollout_device as table
from edgefleet_fleet.paging import Key
from edgefleet_fleet.records import MemberRow
from edgefleet_fleet.roster import Outcome


class Members:
    """The devices of rollouts; what the machine looks up of them is in `roster.py`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def all(self, rollout: str) -> tuple[MemberRow, ...]:
        """The devices of a rollout, by wave and name."""
        return self._read(sa.select(table).where(table.c.rollout == rollout))

    def page(
        self,
        rollout: str,
        *,
        limit: int,
        after: Key | None = None,
        outcomes: Collection[Outcome] = (),
    ) -> tuple[MemberRow, ...]:
        """The devices of a rollout behind a (wave, name): so many at most, with these outcomes."""
        query = sa.select(table).where(table.c.rollout == rollout)
        if outcomes:
            query = query.where(table.c.outcome.in_([outcome.value for outcome in outcomes]))
        if after is not None:
            wave, name = after
            same = sa.and_(table.c.wave == wave, table.c.device > name)
            query = query.where(sa.or_(table.c.wave > wave, same))
        return self._read(query.limit(limit))

    def by_wave(self, rollout: str) -> dict[int, tuple[int, int]]:
        """How many devices of each wave are good, and how many there are."""
        good = sa.func.sum(sa.case((table.c.outcome == Outcome.GOOD.value, 1), else_=0))
        query = sa.select(table.c.wave, good, sa.func.count())
        query = query.where(table.c.rollout == rollout).group_by(table.c.wave)
        return {row[0]: (int(row[1]), int(row[2])) for row in self._connection.execute(query)}

    def _read(self, query: sa.Select[Any]) -> tuple[MemberRow, ...]:
        rows = self._connection.execute(query.order_by(table.c.wave, table.c.device))
        return tuple(member_of(row) for row in rows)


def member_of(row: Any) -> MemberRow:
    """A row of the table."""
    return MemberRow(
        rollout=row.rollout,
        device=row.device,
        wave=row.wave,
        kind=row.kind,
        outcome=Outcome(row.outcome),
        order_seq=row.order_seq,
        phase=Phase(row.phase) if row.phase else None,
        reason=Reason(row.reason) if row.reason else None,
        detail=row.detail,
        updated_at=row.updated_at,
        tries=row.tries,
        retry_at=row.retry_at,
    )
