"""TUF documents in the store, by the names under which devices ask for them."""

from __future__ import annotations

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.tables import tuf_document


class TrustDocuments:
    """`1.root.json`, `7.targets.json`, `timestamp.json`, `targets/policy/….json`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> bytes | None:
        """A document; None where there is none of that name."""
        query = sa.select(tuf_document.c.body).where(tuf_document.c.name == name)
        found: bytes | None = self._connection.execute(query).scalar()
        return None if found is None else bytes(found)

    def put(self, name: str, body: bytes, *, at: int) -> None:
        """Keep a document, in place of one of that name."""
        self.drop(name)
        self._connection.execute(tuf_document.insert().values(name=name, body=body, at=at))

    def drop(self, name: str) -> None:
        """Forget a document."""
        self._connection.execute(tuf_document.delete().where(tuf_document.c.name == name))

    def names(self) -> tuple[str, ...]:
        """The names of all documents, sorted."""
        query = sa.select(tuf_document.c.name).order_by(tuf_document.c.name)
        return tuple(self._connection.execute(query).scalars())
