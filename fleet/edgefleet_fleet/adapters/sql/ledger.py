"""Settings, trusted publishers and the audit trail in the store."""

from __future__ import annotations

import sqlalchemy as sa

from edgefleet_contract.keys import PublicKey
from edgefleet_fleet.adapters.sql.documents import insert_once
from edgefleet_fleet.adapters.sql.tables import audit, publisher_key, setting
from edgefleet_fleet.records import AuditRow, Publisher


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

    def trust(self, key: PublicKey, *, at: int, by: str) -> bool:
        """Trust a publisher; False where it is trusted already."""
        values = {
            "key_id": key.id,
            "pem": key.pem,
            "algorithm": key.algorithm,
            "trusted_at": at,
            "trusted_by": by,
        }
        return insert_once(self._connection, publisher_key, values)

    def publishers(self) -> tuple[Publisher, ...]:
        """The trusted publishers by key id, so that the trust document has one spelling."""
        query = sa.select(publisher_key).order_by(publisher_key.c.key_id)
        return tuple(
            Publisher(row.key_id, row.pem, row.algorithm, row.trusted_at, row.trusted_by)
            for row in self._connection.execute(query)
        )

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

    def audit(self, *, limit: int = 200) -> tuple[AuditRow, ...]:
        """The newest rows of the audit trail, newest first."""
        query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
        return tuple(
            AuditRow(row.at, row.who, row.what, row.subject, row.detail, row.address)
            for row in self._connection.execute(query)
        )
