"""Copies what arrives and checks it on the way: its size as it comes, its digest at the end."""

from __future__ import annotations

import hashlib
from typing import IO, Final

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.ports import Readable

PIECE: Final = 256 * 1024


def gather(digest: Digest, source: Readable, into: IO[bytes], *, max_bytes: int) -> int:
    """Copy `source` to its end; how many bytes it had.

    Raises:
        Malformed: TOO_LARGE as soon as there are more than `max_bytes`, or DIGEST_MISMATCH.
    """
    hasher, size = hashlib.sha256(), 0
    while piece := source.read(PIECE):
        size += len(piece)
        if size > max_bytes:
            raise Malformed(
                f"blob {digest[:8]}: more than the {max_bytes} bytes that it may have",
                reason=Reason.TOO_LARGE,
            )
        hasher.update(piece)
        into.write(piece)
    if hasher.hexdigest() != digest:
        raise Malformed(
            f"blob {digest[:8]}: the bytes that arrived hash to {hasher.hexdigest()[:8]}",
            reason=Reason.DIGEST_MISMATCH,
        )
    return size
