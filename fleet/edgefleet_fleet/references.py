"""How models answered when they were built: the drift references of the bundles on the shelf."""

from __future__ import annotations

import logging

from edgefleet_contract.bundle import Digest, Role
from edgefleet_contract.drift_reference import MAX_BYTES, Reference, parse_reference
from edgefleet_contract.errors import EdgefleetError
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.ports import Shelf

log = logging.getLogger("edgefleet.rollout")


class References:
    """References by their digest, read once each."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._read: dict[Digest, Reference | None] = {}

    def first_of(self, tx: Transaction, bundle: Digest) -> Reference | None:
        """That of the first variant of a bundle that has one."""
        found = (self._of(digest) for digest in self._files(tx, bundle))
        return next((reference for reference in found if reference is not None), None)

    def named(self, tx: Transaction, bundle: Digest, reference: Digest) -> Reference | None:
        """The one that a window names, if it is of that bundle."""
        return self._of(reference) if reference in self._files(tx, bundle) else None

    @staticmethod
    def _files(tx: Transaction, bundle: Digest) -> list[Digest]:
        return [file.sha256 for file in tx.bundles.files(bundle) if file.role is Role.DRIFT]

    def _of(self, digest: Digest) -> Reference | None:
        if digest not in self._read:
            try:
                raw = b"".join(self._shelf.read(digest, length=MAX_BYTES + 1))
                self._read[digest] = parse_reference(raw)
            except EdgefleetError as error:  # watching is not deciding: rollouts go on without it
                log.warning("drift reference %s: %s", digest[:8], error.message)
                self._read[digest] = None
        return self._read[digest]
