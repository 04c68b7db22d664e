"""Idempotency keys in the store: what was made under which key, for a day."""

from __future__ import annotations

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.documents import insert_once
from edgefleet_fleet.adapters.sql.tables import idempotency_key as table
from edgefleet_fleet.records import MadeRow


class Made:
    """What was made under keys of users."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def get(self, who: str, key: str, *, since: int) -> MadeRow | None:
        """What somebody made under a key, at `since` or later."""
        mine = sa.and_(table.c.who == who, table.c.key == key, table.c.at >= since)
        row = self._connection.execute(sa.select(table).where(mine)).first()
        if row is None:
            return None
        body = bytes(row.body) if row.body is not None else None
        return MadeRow(row.who, row.key, row.asked_sha256, row.at, row.status, body)

    def take(self, row: MadeRow, *, since: int) -> bool:
        """Keep a key; False where it is taken. Those from before `since` are forgotten."""
        self._connection.execute(table.delete().where(table.c.at < since))
        values = {"who": row.who, "key": row.key, "asked_sha256": row.asked_sha256, "at": row.at}
        return insert_once(self._connection, table, values)

    def answer(self, who: str, key: str, status: int, body: bytes) -> None:
        """Keep what was answered."""
        mine = sa.and_(table.c.who == who, table.c.key == key)
        self._connection.execute(table.update().where(mine).values(status=status, body=body))

    def drop(self, who: str, key: str) -> None:
        """Forget a key: nothing was made."""
        mine = sa.and_(table.c.who == who, table.c.key == key, table.c.status.is_(None))
        self._connection.execute(table.delete().where(mine))
