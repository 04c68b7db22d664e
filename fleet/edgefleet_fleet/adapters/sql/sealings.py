"""The keys of sealed bundles in the store."""

from __future__ import annotations

import sqlalchemy as sa

from edgefleet_contract.bundle import Digest
from edgefleet_contract.sealed import Dek
from edgefleet_fleet.adapters.sql.documents import insert_once
from edgefleet_fleet.adapters.sql.tables import bundle as bundle_table
from edgefleet_fleet.adapters.sql.tables import sealing as table
from edgefleet_fleet.records import Sealing


class Sealings:
    """One key for each bundle that was ever sealed; made once, never replaced."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def get(self, bundle: str) -> Sealing | None:
        """How a bundle is sealed; None where it never was."""
        row = self._connection.execute(sa.select(table).where(table.c.bundle == bundle)).first()
        if row is None:
            return None
        return Sealing(Digest(row.bundle), Dek(bytes(row.dek)), Digest(row.index_sha256))

    def add(self, sealing: Sealing, *, at: int) -> None:
        """Keep how a bundle is sealed; one that is there already stays."""
        values = {
            "bundle": sealing.bundle,
            "dek": sealing.dek.raw,
            "index_sha256": sealing.index_sha256,
            "at": at,
        }
        insert_once(self._connection, table, values)

    def indexes(self) -> tuple[Digest, ...]:
        """The index of each sealed bundle."""
        rows = self._connection.execute(sa.select(table.c.index_sha256))
        return tuple(Digest(row[0]) for row in rows)

    def remove(self, bundle: str) -> None:
        """Forget the key of a bundle: what was sealed under it is opened by nobody new."""
        self._connection.execute(table.delete().where(table.c.bundle == bundle))

    def remove_strays(self) -> int:
        """Forget the keys of bundles that are not there; how many."""
        there = sa.select(sa.literal(1)).where(bundle_table.c.digest == table.c.bundle).exists()
        return self._connection.execute(table.delete().where(~there)).rowcount
