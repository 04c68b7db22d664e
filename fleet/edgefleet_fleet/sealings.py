"""Seals bundles for devices: once for the shelf, and the key anew for each order.

A bundle has one data encryption key (DEK). It is kept in the data base as it is: whoever may read
that is on the machine that has the same files in the clear on its shelf, so a key beside the lock
gives nothing away. (Where the data base is on another machine, or a dump of it leaves this one,
whoever reads it and the sealed blobs has the model: such a data base is to be guarded like the
shelf.) Under one DEK a path has one text, the one that `bundle.json` names; so the plain bytes are
held against their digest before anything is sealed, and sealing again gives the same blobs.

What sealing does not hide: names, sizes and digests, which `bundle.json` says to everybody.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from edgefleet_contract.bundle import CHUNK_SIZE, Digest, sha256
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.orders import Sealed, Target
from edgefleet_contract.sealed import (
    SEALED_DEK_SIZE,
    Dek,
    make_dek,
    parse_seal_key,
    seal_chunks,
    seal_dek,
)
from edgefleet_contract.sealed_index import SealedFile, SealedIndex, render_index
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.library import require_complete
from edgefleet_fleet.records import BundleFile, Device, Sealing
from edgefleet_fleet.work import Actor, Room

log = logging.getLogger("edgefleet.fleet")

_FOR_NOBODY: Final = base64.b64encode(bytes(SEALED_DEK_SIZE)).decode()
NO_KEY: Final = (
    "it has no key to seal for: enrol it anew with an agent that makes one, or roll out unsealed"
)


class Sealings:
    """The sealed bundles of a control room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def seal(self, digest: str, signature_sha256: str, *, actor: Actor) -> None:
        """Put the sealed form of a bundle on the shelf, once. Takes as long as reading it twice.

        Raises:
            NotFound: there is no such bundle.
            OperatorError: it is not complete, or a file of it has gone bad on the shelf.
        """
        with self._room.store.begin() as tx:
            bundle = require_complete(tx.bundles.get(digest, signature_sha256), digest)
            files = tx.bundles.files(digest)
            found = tx.sealings.get(digest)
        if found is not None:
            return
        # The key is kept once all is on the shelf: what a crash leaves is under a key that nobody
        # was ever told, and is only room on the disk.
        dek = make_dek()
        index = SealedIndex(
            bundle.digest, tuple(self._seal_file(dek, bundle.digest, file) for file in files)
        )
        raw = render_index(index)
        self._room.shelf.put(sha256(raw), _Pieces(iter((raw,))), max_bytes=len(raw))
        with self._room.work(actor) as work:
            require_complete(work.tx.bundles.get(digest, signature_sha256), digest)  # still there
            work.tx.sealings.add(Sealing(bundle.digest, dek, sha256(raw)), at=work.now)
            name = f"{bundle.model}-{bundle.version}"
            work.record("bundle.seal", name, f"{digest[:8]}, index {sha256(raw)[:8]}")
            work.changed("bundle", digest)

    def _seal_file(self, dek: Dek, bundle: Digest, file: BundleFile) -> SealedFile:
        """A file's sealed form on the shelf: sealed once for its digests, once for its bytes."""
        shelf = self._room.shelf
        plain, whole = hashlib.sha256(), hashlib.sha256()
        table, size = bytearray(), 0
        for chunk in _cut(self._sealed(dek, bundle, file, plain)):
            whole.update(chunk)
            table += hashlib.sha256(chunk).digest()
            size += len(chunk)
        if plain.hexdigest() != file.sha256:
            raise OperatorError(
                f"{file.path}: blob {file.sha256[:8]} has gone bad on the shelf",
                hint="restore it from a backup, or push the bundle to a new shelf",
            )
        digest, chunks = Digest(whole.hexdigest()), sha256(bytes(table))
        shelf.put(digest, _Pieces(self._sealed(dek, bundle, file)), max_bytes=size)
        shelf.put(chunks, _Pieces(iter((bytes(table),))), max_bytes=len(table))
        return SealedFile(file.path, size, digest, chunks)

    def _sealed(
        self, dek: Dek, bundle: Digest, file: BundleFile, plain: hashlib._Hash | None = None
    ) -> Iterator[bytes]:
        """The sealed chunks of a file; `plain` is told what went in."""

        def read() -> Iterator[bytes]:
            for piece in self._room.shelf.read(file.sha256):
                if plain is not None:
                    plain.update(piece)
                yield piece

        return seal_chunks(dek, bundle, file.path, read())


def draft(tx: Transaction, bundle: Digest) -> Sealed:
    """What a level says of a sealed bundle, before it is sealed for a device: opens nothing."""
    sealing = tx.sealings.get(bundle)
    assert sealing is not None  # it was sealed before anything says so
    return Sealed(_FOR_NOBODY, sealing.index_sha256)


def draft_of(tx: Transaction, target: Target) -> Target:
    """A target by which nobody asked (a device says that it runs it): sealed, unless some rollout
    hands the bundle out in the clear."""
    bundle = tx.bundles.get(target.bundle_sha256)
    if bundle is None or bundle.in_clear or tx.sealings.get(target.bundle_sha256) is None:
        return target
    return replace(target, sealed=draft(tx, target.bundle_sha256))


def for_device(tx: Transaction, target: Target, device: Device, *, fleet: str) -> Target:
    """A target as an order says it: a sealed one with the key, sealed for this device."""
    if target.sealed is None:
        return target
    sealing = tx.sealings.get(target.bundle_sha256)
    assert sealing is not None  # it was sealed before anything said so
    raw = seal_dek(
        sealing.dek,
        parse_seal_key(device.seal_key),
        fleet=fleet,
        device=device.id,
        bundle=target.bundle_sha256,
    )
    return replace(
        target, sealed=Sealed(base64.b64encode(raw).decode("ascii"), sealing.index_sha256)
    )


class _Pieces:
    """Bytes that come in pieces, as something that is read until there are none."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int, /) -> bytes:
        return next(self._pieces, b"")


def _cut(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks of a chunk list: 64 KiB each, however the pieces fall."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= CHUNK_SIZE:
            yield bytes(held[:CHUNK_SIZE])
            del held[:CHUNK_SIZE]
    if held:
        yield bytes(held)
