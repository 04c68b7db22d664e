"""Claims in the store: the right to enrol, counted down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from edgefleet_contract.bundle import Digest
from edgefleet_fleet.adapters.sql.tables import claim as table
from edgefleet_fleet.adapters.sql.tables import claim_device
from edgefleet_fleet.admission import Listed
from edgefleet_fleet.records import Claim


class Claims:
    """The claims that were made; their secrets are not here, only hashes of them."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(
        self,
        *,
        secret_sha256: str,
        at: int,
        by: str,
        expires: int,
        uses: int,
        trust: Digest,
        approve: bool = False,
        listed: Sequence[Listed] = (),
    ) -> int:
        """Keep a new claim and its list; its number."""
        result = self._connection.execute(
            table.insert().values(
                secret_sha256=secret_sha256,
                created_at=at,
                created_by=by,
                expires_at=expires,
                uses_left=uses,
                trust_sha256=trust,
                revoked=False,
                approve=approve,
                listed=len(listed),
            )
        )
        key = result.inserted_primary_key
        assert key is not None
        number = int(key[0])
        if listed:
            rows = [
                {"claim": number, "device": entry.device, "key_id": entry.key_id}
                for entry in listed
            ]
            self._connection.execute(claim_device.insert(), rows)
        return number

    def get(self, claim: int) -> Claim | None:
        """The claim of a number."""
        row = self._connection.execute(sa.select(table).where(table.c.id == claim)).first()
        return _claim(row) if row is not None else None

    def entry(self, claim: int, device: str) -> Listed | None:
        """What the list of a claim says of a device."""
        query = sa.select(claim_device).where(
            claim_device.c.claim == claim, claim_device.c.device == device
        )
        row = self._connection.execute(query).first()
        return Listed(row.device, row.key_id) if row is not None else None

    def find(self, secret_sha256: str) -> Claim | None:
        """The claim whose secret hashes to this."""
        query = sa.select(table).where(table.c.secret_sha256 == secret_sha256)
        row = self._connection.execute(query).first()
        return _claim(row) if row is not None else None

    def list(self) -> tuple[Claim, ...]:
        """All claims, newest first."""
        query = sa.select(table).order_by(table.c.id.desc())
        return tuple(_claim(row) for row in self._connection.execute(query))

    def use(self, claim: int) -> bool:
        """Count a use; whether there was one left."""
        statement = (
            table.update()
            .where(table.c.id == claim, table.c.uses_left > 0, table.c.revoked.is_(False))
            .values(uses_left=table.c.uses_left - 1)
        )
        return self._connection.execute(statement).rowcount == 1

    def revoke(self, claim: int) -> bool:
        """End a claim; whether there was one of this number."""
        statement = table.update().where(table.c.id == claim).values(revoked=True)
        return self._connection.execute(statement).rowcount == 1


def _claim(row: Any) -> Claim:
    return Claim(
        id=row.id,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        uses_left=row.uses_left,
        trust_sha256=Digest(row.trust_sha256),
        revoked=row.revoked,
        approve=row.approve,
        listed=row.listed,
    )
