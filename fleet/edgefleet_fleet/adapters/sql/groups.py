"""Groups in the store: filters with a name."""

from __future__ import annotations

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.tables import device_group as table
from edgefleet_fleet.filter_parser import parse_filter
from edgefleet_fleet.filters import Filter
from edgefleet_fleet.records import GroupRow


class Groups:
    """The groups of a fleet."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> GroupRow | None:
        """The group of this name."""
        row = self._connection.execute(sa.select(table).where(table.c.name == name)).first()
        return GroupRow(**row._mapping) if row is not None else None

    def list(self) -> tuple[GroupRow, ...]:
        """All groups by name."""
        rows = self._connection.execute(sa.select(table).order_by(table.c.name))
        return tuple(GroupRow(**row._mapping) for row in rows)

    def filters(self) -> dict[str, Filter]:
        """What each group means."""
        return {row.name: parse_filter(row.filter) for row in self.list()}

    def put(self, row: GroupRow) -> None:
        """Keep a group, in the place of one of that name."""
        self.drop(row.name)
        self._connection.execute(
            table.insert().values(
                name=row.name,
                filter=row.filter,
                about=row.about,
                created_at=row.created_at,
                created_by=row.created_by,
            )
        )

    def drop(self, name: str) -> None:
        """Forget a group."""
        self._connection.execute(table.delete().where(table.c.name == name))
