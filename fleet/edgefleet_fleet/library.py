"""The bundles that the fleet can hand out.

A bundle comes in three steps: its manifest and signature (checked at the door), the blobs that
the shelf lacks, and the word that it is complete, on which chunk lists are derived. A bundle that
is not complete cannot be rolled out.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.bundle import (
    CHUNK_SIZE,
    Digest,
    Manifest,
    parse_manifest,
    sha256,
)
from edgefleet_contract.errors import EdgefleetError, Malformed, OperatorError, Unverified
from edgefleet_contract.model_signature import open_bundle
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.leftovers import Leftovers
from edgefleet_fleet.publications import Publications
from edgefleet_fleet.records import Bundle, BundleFile
from edgefleet_fleet.registry import references
from edgefleet_fleet.work import Actor, Room, Work

log = logging.getLogger("edgefleet.fleet")

_IN_USE: Final = (
    "roll out another version first; a release is taken back with `fleet keys revoke version`"
)


@dataclass(frozen=True, slots=True)
class Received:
    """A bundle that was announced, and the blobs that are still to come."""

    bundle: Bundle
    missing: tuple[BundleFile, ...]


class Library:
    """The bundles."""

    def __init__(
        self, room: Room, publications: Publications, leftovers: Leftovers | None = None
    ) -> None:
        self._room = room
        self._publications = publications
        self._leftovers = leftovers or Leftovers(room)
        self._handed_out: set[Digest] = set()

    def receive(
        self, manifest_bytes: bytes, signature: bytes, *, check: bool, actor: Actor
    ) -> Received:
        """Take a bundle's manifest and signature.

        Args:
            manifest_bytes: `bundle.json`.
            signature: `model.sig`.
            check: False keeps a bundle that the fleet cannot vouch for; devices refuse it.
            actor: who pushes it.

        Raises:
            Malformed: the manifest is not valid.
            Unverified: `check`, and no trusted publisher signed it.
            Conflict: another bundle has this model and version.
        """
        manifest = parse_manifest(manifest_bytes)
        digest, signature_sha256 = sha256(manifest_bytes), sha256(signature)
        with self._room.work(actor) as work:
            signer = self._signer(work, manifest_bytes, signature, check=check)
            if signer:
                _check_version(work, manifest, digest)
            for raw in (manifest_bytes, signature):
                if not self._room.shelf.has(sha256(raw)):
                    self._room.shelf.put(sha256(raw), io.BytesIO(raw), max_bytes=len(raw))
            work.tx.bundles.add(
                manifest,
                digest=digest,
                signature_sha256=signature_sha256,
                size=manifest.total_size + len(manifest_bytes) + len(signature),
                at=work.now,
                by=actor.who,
                signer=signer,
            )
            work.record("bundle.receive", manifest.name, f"{digest[:8]}, signer {signer[:8]}")
            bundle = work.tx.bundles.get(digest, signature_sha256)
            assert bundle is not None
            missing = self._missing(work, digest)
        return Received(bundle, missing)

    def size(self, digest: Digest) -> int | None:
        """The size of a blob that anybody may have; None where there is none."""
        found = self._room.shelf.size(digest)
        return found if found is not None and self.hands_out(digest) else None

    def read(self, digest: Digest, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of such a blob, or of a part of it."""
        return self._room.shelf.read(digest, start=start, length=length)

    def hands_out(self, digest: Digest) -> bool:
        """Whether anybody may have a blob that is on the shelf.

        A file of a bundle is handed out once a rollout asks for it in the clear. Until then, and
        for sealed rollouts, what devices fetch are sealed blobs, chunk lists and documents. What
        was handed out once is no secret any more, so a yes is remembered.
        """
        if digest in self._handed_out:
            return True
        with self._room.store.begin() as tx:
            withheld = tx.bundles.is_withheld(digest)
        if not withheld:
            self._handed_out.add(digest)
        return not withheld

    def complete(self, digest: str, signature_sha256: str, *, actor: Actor) -> Bundle:
        """Check that every blob is there, derive the chunk lists, and let it be rolled out.

        Raises:
            NotFound: there is no such bundle.
            Conflict: blobs are missing.
            Malformed: a chunk list is not the one that the manifest names.
        """
        with self._room.store.begin() as tx:
            bundle = tx.bundles.get(digest, signature_sha256)
            files = tx.bundles.files(digest)
        if bundle is None:
            raise NotFound(f"there is no bundle {digest[:8]}")
        if bundle.complete:
            return bundle
        for file in files:
            self._derive_chunk_list(file)
        with self._room.work(actor) as work:
            work.tx.bundles.set_complete(bundle.digest, bundle.signature_sha256)
            work.record("bundle.complete", f"{bundle.model}-{bundle.version}", digest[:8])
            work.changed("bundle", digest)
            found = work.tx.bundles.get(digest, signature_sha256)
            if found is None:
                raise NotFound(f"bundle {digest[:8]} was removed meanwhile")
        return found

    def remove(self, digest: str, *, actor: Actor) -> int:
        """Take a bundle away with the blobs that no other names, and its sealed ones; how many
        blobs went. What ends the service in the middle of it leaves some for the sweep.

        Raises:
            NotFound: there is no such bundle.
            Conflict: something refers to it: a release, a rollout that is not over, an order, or
                a device that runs it.
        """
        with self._room.work(actor) as work:
            bundle = work.tx.bundles.get(digest)
            if bundle is None:
                raise NotFound(f"there is no bundle {digest[:8]}", hint="fleet bundles list")
            name = f"{bundle.model}-{bundle.version}"
            uses = references(work.tx, self._publications, bundle)
            if uses:
                raise Conflict(f"{name} is in use: {', '.join(uses[:5])}", hint=_IN_USE)
            blobs = set(work.tx.bundles.remove(bundle.digest))
            sealing = work.tx.sealings.get(digest)
            if sealing is not None:
                work.tx.sealings.remove(digest)
            work.record("bundle.remove", name, digest[:8])
            work.changed("bundle", digest)
        self._handed_out.difference_update(blobs)
        if sealing is not None:
            try:
                blobs |= self._leftovers.of_index(sealing.index_sha256)
            except (EdgefleetError, OSError) as error:
                log.warning("sealed files of %s stay for the sweep: %s", name, error)
        return self._leftovers.remove(sorted(blobs))  # after the commit: never one too few

    def manifest(self, digest: Digest) -> Manifest:
        """The manifest of a bundle on the shelf.

        Raises:
            NotFound: it is not there.
        """
        return parse_manifest(b"".join(self._room.shelf.read(digest)))

    def _derive_chunk_list(self, file: BundleFile) -> None:
        shelf = self._room.shelf
        if shelf.size(file.sha256) != file.size:
            raise Conflict(f"{file.path}: blob {file.sha256[:8]} is not on the shelf")
        digests = io.BytesIO()
        chunk = bytearray()
        for piece in shelf.read(file.sha256):
            chunk += piece
            while len(chunk) >= CHUNK_SIZE:
                digests.write(hashlib.sha256(chunk[:CHUNK_SIZE]).digest())
                del chunk[:CHUNK_SIZE]
        if chunk:
            digests.write(hashlib.sha256(chunk).digest())
        raw = digests.getvalue()
        if sha256(raw) != file.chunk_list_sha256:
            raise Malformed(
                f"{file.path}: its chunk list is not the one that bundle.json names",
                reason=Reason.BUNDLE_MISMATCH,
            )
        shelf.put(file.chunk_list_sha256, io.BytesIO(raw), max_bytes=len(raw))

    def _missing(self, work: Work, digest: str) -> tuple[BundleFile, ...]:
        files = work.tx.bundles.files(digest)
        return tuple(file for file in files if not self._room.shelf.has(file.sha256))

    def _signer(self, work: Work, manifest: bytes, signature: bytes, *, check: bool) -> str:
        try:
            ring = self._publications.publishers(work.tx)
            return open_bundle(manifest, signature, ring).signer
        except (Malformed, OperatorError, Unverified):
            if check:
                raise
            return ""


def _check_version(work: Work, manifest: Manifest, digest: Digest) -> None:
    for other in work.tx.bundles.find_version(manifest.model, manifest.version):
        if other.signer and other.digest != digest:
            raise Conflict(
                f"{manifest.name} exists already, with other content ({other.digest[:8]})",
                hint="a version is never used twice: raise it",
            )


def require_complete(bundle: Bundle | None, digest: str) -> Bundle:
    """The bundle, if it can be rolled out.

    Raises:
        NotFound: there is none.
        OperatorError: it is not complete.
    """
    if bundle is None:
        raise NotFound(f"there is no bundle {digest[:8]}")
    if not bundle.complete:
        raise OperatorError(f"{bundle.model}-{bundle.version} is not complete yet")
    return bundle
