"""Bundles in the store: which there are, under which signature, and what blobs they need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from edgefleet_contract.bundle import Digest, Manifest, Role
from edgefleet_contract.orders import Target
from edgefleet_fleet.adapters.sql.documents import insert_once
from edgefleet_fleet.adapters.sql.tables import bundle as table
from edgefleet_fleet.adapters.sql.tables import bundle_file as files
from edgefleet_fleet.records import Bundle, BundleFile


class Bundles:
    """The bundles that were pushed. The same manifest under another signature is another row."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(
        self,
        manifest: Manifest,
        *,
        digest: Digest,
        signature_sha256: Digest,
        size: int,
        at: int,
        by: str,
        signer: str,
    ) -> None:
        """Keep a bundle; one that is there already learns its signer only."""
        values = {
            "digest": digest,
            "signature_sha256": signature_sha256,
            "model": manifest.model,
            "version": manifest.version,
            "size": size,
            "created_at": at,
            "created_by": by,
            "signer": signer,
            "complete": False,
            "in_clear": False,
        }
        if not insert_once(self._connection, table, values) and signer:
            self._connection.execute(
                table.update().where(self._is(digest, signature_sha256)).values(signer=signer)
            )
        for file in manifest.files:
            row = {
                "bundle": digest,
                "path": file.path,
                "role": file.role.value,
                "size": file.size,
                "sha256": file.sha256,
                "chunk_list_sha256": file.chunk_list_sha256,
            }
            insert_once(self._connection, files, row)

    def set_complete(self, digest: Digest, signature_sha256: Digest) -> None:
        """Note that every blob of the bundle is on the shelf."""
        self._connection.execute(
            table.update().where(self._is(digest, signature_sha256)).values(complete=True)
        )

    def set_in_clear(self, digest: Digest) -> None:
        """Note that a rollout hands the bundle out unsealed; nothing takes that back."""
        self._connection.execute(
            table.update().where(table.c.digest == digest).values(in_clear=True)
        )

    def is_withheld(self, blob: str) -> bool:
        """Whether a blob is a file of bundles, and none of them is handed out in the clear."""
        query = sa.select(sa.func.max(sa.cast(table.c.in_clear, sa.Integer))).where(
            table.c.digest == files.c.bundle, files.c.sha256 == blob
        )
        return self._connection.execute(query).scalar() == 0

    def get(self, digest: str, signature_sha256: str | None = None) -> Bundle | None:
        """A bundle; without a signature, the one that was verified, then the newest."""
        query = sa.select(table).where(table.c.digest == digest)
        if signature_sha256 is not None:
            query = query.where(table.c.signature_sha256 == signature_sha256)
        query = query.order_by((table.c.signer != "").desc(), table.c.created_at.desc())
        row = self._connection.execute(query).first()
        return _bundle(row) if row is not None else None

    def list(self) -> tuple[Bundle, ...]:
        """All bundles, newest first."""
        query = sa.select(table).order_by(table.c.created_at.desc(), table.c.version.desc())
        return tuple(_bundle(row) for row in self._connection.execute(query))

    def find_version(self, model: str, version: int) -> tuple[Bundle, ...]:
        """The bundles of one version of a model."""
        query = sa.select(table).where(table.c.model == model, table.c.version == version)
        return tuple(_bundle(row) for row in self._connection.execute(query))

    def files(self, digest: str) -> tuple[BundleFile, ...]:
        """The blobs of a bundle by path."""
        query = sa.select(files).where(files.c.bundle == digest).order_by(files.c.path)
        return tuple(
            BundleFile(
                row.path,
                Role(row.role),
                row.size,
                Digest(row.sha256),
                Digest(row.chunk_list_sha256),
            )
            for row in self._connection.execute(query)
        )

    def wants(self, digest: str) -> int | None:
        """The size of a blob that some bundle names; None where none does."""
        query = sa.select(files.c.size).where(files.c.sha256 == digest).limit(1)
        size: int | None = self._connection.execute(query).scalar()
        return size

    def are_kin(self, old: str, new: str, *, max_bytes: int) -> bool:
        """Whether two blobs are one file of one model, in two bundles."""
        one, other = files.alias(), files.alias()
        mine, theirs = table.alias(), table.alias()
        query = (
            sa.select(sa.literal(1))
            .select_from(one)
            .join(other, sa.and_(one.c.path == other.c.path, one.c.role == other.c.role))
            .join(mine, mine.c.digest == one.c.bundle)
            .join(
                theirs, sa.and_(theirs.c.digest == other.c.bundle, theirs.c.model == mine.c.model)
            )
            .where(one.c.sha256 == old, other.c.sha256 == new)
            .where(one.c.role.in_((Role.MODEL.value, Role.WEIGHTS.value)))
            .where(one.c.size <= max_bytes, other.c.size <= max_bytes)
            .limit(1)
        )
        return self._connection.execute(query).first() is not None

    def target(self, digest: str, *, slot: str) -> Target | None:
        """What an order needs to know of a bundle."""
        found = self.get(digest)
        if found is None:
            return None
        return Target(
            slot,
            found.model,
            found.version,
            found.digest,
            found.signature_sha256,
            found.size,
        )

    def unnamed(self, blobs: Iterable[Digest]) -> set[Digest]:
        """Those of these blobs that no bundle names."""
        left = set(blobs)
        for named in (
            files.c.sha256,
            files.c.chunk_list_sha256,
            table.c.digest,
            table.c.signature_sha256,
        ):
            if left:
                found = self._connection.execute(sa.select(named).where(named.in_(sorted(left))))
                left -= {Digest(row[0]) for row in found}
        return left

    def remove(self, digest: Digest) -> tuple[Digest, ...]:
        """Forget a bundle under all its signatures; the blobs that nothing names any more."""
        query = sa.select(table.c.signature_sha256).where(table.c.digest == digest)
        mine = {digest, *(Digest(row[0]) for row in self._connection.execute(query))}
        for file in self.files(digest):
            mine |= {file.sha256, file.chunk_list_sha256}
        self._connection.execute(files.delete().where(files.c.bundle == digest))
        self._connection.execute(table.delete().where(table.c.digest == digest))
        return tuple(sorted(self.unnamed(mine)))

    @staticmethod
    def _is(digest: str, signature_sha256: str) -> Any:
        return sa.and_(table.c.digest == digest, table.c.signature_sha256 == signature_sha256)


def _bundle(row: Any) -> Bundle:
    return Bundle(
        digest=Digest(row.digest),
        signature_sha256=Digest(row.signature_sha256),
        model=row.model,
        version=row.version,
        size=row.size,
        created_at=row.created_at,
        created_by=row.created_by,
        signer=row.signer,
        complete=row.complete,
        in_clear=row.in_clear,
    )
