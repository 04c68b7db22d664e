"""What nobody names any more: blobs of removed bundles, sealed ones too; found, and taken away.

The data base says what there is, and the shelf follows it. A bundle goes in this order: its rows,
in one commit; then its blobs, looked at once more under the lock of all changes, so that a bundle
that came meanwhile keeps what it shares. Whatever ends the service in between leaves a blob too
many, never one too few, and the sweep finds it. The sweep leaves alone what is younger than a day:
what is made for the shelf is named only afterwards. Where an index of sealed files cannot be read,
it is not known what it names, and nothing is taken away.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Final

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import EdgefleetError
from edgefleet_contract.sealed_index import parse_index
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.work import Room

log = logging.getLogger("edgefleet.fleet")

GRACE_S: Final = 24 * 3600
"""How old a blob is at least that a sweep takes away."""
_AT_ONCE: Final = 50


class Leftovers:
    """What is on the shelf of a control room and named by nothing."""

    def __init__(self, room: Room, *, grace_s: float = GRACE_S) -> None:
        self._room = room
        self._grace_s = grace_s
        self._sealed: dict[Digest, frozenset[Digest]] = {}

    def of_index(self, index: Digest) -> frozenset[Digest]:
        """The blobs that an index of sealed files names, and itself.

        Raises:
            EdgefleetError: it cannot be read.
        """
        if index not in self._sealed:
            raw = b"".join(self._room.shelf.read(index))
            named = {index}
            for file in parse_index(raw).files:
                named |= {file.sha256, file.chunk_list_sha256}
            self._sealed[index] = frozenset(named)  # an index never changes
        return self._sealed[index]

    def find(self, *, seconds: float | None = None) -> Iterator[Digest]:
        """The blobs that nobody names, of a day and more; looks for so long at most.

        Raises:
            EdgefleetError: the shelf cannot be read.
        """
        started = time.monotonic()
        old = self._room.shelf.digests(before=time.time() - self._grace_s)
        while chunk := list(itertools.islice(old, 1000)):
            with self._room.store.begin() as tx:
                unnamed = self._unnamed(tx, chunk)
            yield from sorted(unnamed)
            if seconds is not None and time.monotonic() - started > seconds:
                return

    def sweep(self) -> int:
        """Take away what nobody names; how many blobs. Does nothing where the shelf is in trouble.

        Raises:
            TransientError: the data base does not answer.
        """
        with self._room.work() as work:
            stray = work.tx.sealings.remove_strays()
        if stray:
            log.info("keys of %d sealed bundles that are removed: taken away", stray)
        try:
            found = list(self.find())
        except (EdgefleetError, OSError) as error:
            log.error("the shelf is not swept: %s", error)
            return 0
        return self.remove(found)

    def remove(self, blobs: Iterable[Digest]) -> int:
        """Take away those of these blobs that nobody names; how many. What does not go is left
        for the sweep."""
        count, left = 0, iter(blobs)
        try:
            while some := list(itertools.islice(left, _AT_ONCE)):
                with self._room.work() as work:
                    for blob in sorted(self._unnamed(work.tx, some)):
                        self._room.shelf.remove(blob)
                        (self._room.keys.uploads / blob).unlink(missing_ok=True)
                        count += 1
        except (EdgefleetError, OSError) as error:
            log.warning("blobs that nobody names stay for the sweep: %s", error)
        if count:
            log.info("%d blobs that nobody names: taken away", count)
        return count

    def _unnamed(self, tx: Transaction, blobs: Iterable[Digest]) -> set[Digest]:
        unnamed = tx.bundles.unnamed(blobs)
        if unnamed:
            for index in tx.sealings.indexes():
                unnamed -= self.of_index(index)
        return unnamed
