"""Certificates in the store: each that was issued to a device, and which were taken back."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.tables import certificate as table

REVOKED: Final = "revoked"
FORGOTTEN: Final = "forgotten"


class Certificates:
    """Rows are never deleted: what was taken back stays taken back."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, serial: str, *, device: str, key_id: str, at: int, expires: int) -> None:
        """Keep a certificate that was issued; `serial` is hex."""
        values = {"serial": serial, "device": device, "key_id": key_id, "issued_at": at}
        self._connection.execute(
            table.insert().values(**values, expires_at=expires, revoked_at=None, cause="")
        )

    def revoke(self, device: str, *, at: int, cause: str) -> int:
        """Take back what a device has; how many certificates that are."""
        mine = table.update().where(table.c.device == device, table.c.revoked_at.is_(None))
        return self._connection.execute(mine.values(revoked_at=at, cause=cause)).rowcount

    def ban(self, key_id: str) -> None:
        """Let a key never have a certificate again, under whichever name."""
        self._connection.execute(
            table.update().where(table.c.key_id == key_id).values(cause=REVOKED)
        )

    def is_banned(self, key_id: str) -> bool:
        """Whether a key was revoked."""
        query = sa.select(table.c.serial).where(
            table.c.key_id == key_id, table.c.cause == REVOKED, table.c.revoked_at.is_not(None)
        )
        return self._connection.execute(query.limit(1)).first() is not None

    def revoked(self) -> tuple[tuple[str, int], ...]:
        """Serial (hex) and time of every certificate that was taken back, oldest first."""
        query = sa.select(table.c.serial, table.c.revoked_at).where(table.c.revoked_at.is_not(None))
        rows = self._connection.execute(query.order_by(table.c.revoked_at, table.c.serial))
        return tuple((row.serial, row.revoked_at) for row in rows)

    def newest(self, device: str) -> tuple[int, int] | None:
        """When the newest certificate of a device was issued, and when it ends."""
        query = (
            sa.select(table.c.issued_at, table.c.expires_at)
            .where(table.c.device == device, table.c.revoked_at.is_(None))
            .order_by(table.c.issued_at.desc())
        )
        row = self._connection.execute(query.limit(1)).first()
        return (row.issued_at, row.expires_at) if row is not None else None
