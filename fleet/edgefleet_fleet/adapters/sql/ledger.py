"""Settings and the audit trail in the store."""

from __future__ import annotations

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.tables import audit, setting
from edgefleet_fleet.records import AuditRow


class Ledger:
    """What was decided, and by whom."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def setting(self, key: str) -> str | None:
        """The value of a setting."""
        query = sa.select(setting.c.value).where(setting.c.key == key)
        value: str | None = self._connection.execute(query).scalar()
        return value

    def set_setting(self, key: str, value: str) -> None:
        """Keep a setting."""
        self._connection.execute(setting.delete().where(setting.c.key == key))
        self._connection.execute(setting.insert().values(key=key, value=value))

    def record(self, row: AuditRow) -> None:
        """Add a row to the audit trail."""
        self._connection.execute(
            audit.insert().values(
                at=row.at,
                who=row.who,
                what=row.what,
                subject=row.subject,
                detail=row.detail,
                address=row.address,
            )
        )

    def newest(self) -> int:
        """The number of the newest row of the audit trail; 0 where there is none."""
        return self._connection.execute(sa.select(sa.func.max(audit.c.id))).scalar() or 0

    def after(self, number: int, *, limit: int) -> list[tuple[int, AuditRow]]:
        """The rows behind a row of the audit trail with their numbers, oldest first."""
        query = sa.select(audit).where(audit.c.id > number).order_by(audit.c.id).limit(limit)
        return [
            (row.id, AuditRow(row.at, row.who, row.what, row.subject, row.detail, row.address))
            for row in self._connection.execute(query)
        ]

    def page(
        self,
        *,
        limit: int,
        before: int | None = None,
        who: str = "",
        what: str = "",
        since: int = 0,
    ) -> list[tuple[int, AuditRow]]:
        """Rows of the audit trail with their numbers, newest first: below a number, by somebody,
        of a kind, since a time."""
        query = sa.select(audit).where(audit.c.at >= since)
        if before is not None:
            query = query.where(audit.c.id < before)
        if who:
            query = query.where(audit.c.who == who)
        if what:
            query = query.where(audit.c.what == what)
        rows = self._connection.execute(query.order_by(audit.c.id.desc()).limit(limit))
        return [
            (row.id, AuditRow(row.at, row.who, row.what, row.subject, row.detail, row.address))
            for row in rows
        ]

    def audit(self, *, limit: int = 200) -> tuple[AuditRow, ...]:
        """The newest rows of the audit trail, newest first."""
        query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
        return tuple(
            AuditRow(row.at, row.who, row.what, row.subject, row.detail, row.address)
            for row in self._connection.execute(query)
        )
