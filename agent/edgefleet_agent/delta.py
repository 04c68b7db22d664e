"""Makes files of the store from those of the releases before, and deltas.

A delta is believed for nothing: what it makes is hashed on the way, and enters the store only under
the digest that a publisher signed. Whatever goes wrong is a value, so that the caller fetches the
whole file instead; what was made until then stays as the beginning of that file, for the chunks of
a whole transfer are held against its list wherever they came from.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.store import Store, disk_error
from edgefleet_agent.device import Installed
from edgefleet_agent.ports import Failed, Fetcher
from edgefleet_contract.bundle import Digest, Role, parse_manifest
from edgefleet_contract.delta import WORTH
from edgefleet_contract.delta_reader import Zstd, rebuild
from edgefleet_contract.errors import DeviceError, Malformed, PeerError

log = logging.getLogger(__name__)

SMALLEST: Final = 4096
"""Bytes of a file; of a smaller one, asking for a delta costs as much as it saves."""


class Updates:
    """Makes new files from old ones; `saved` counts the bytes that did not have to come."""

    def __init__(self, store: Store, fetcher: Fetcher) -> None:
        self._store, self._fetcher = store, fetcher
        self.saved = 0

    def make(
        self,
        old: Digest,
        new: Digest,
        *,
        size: int,
        needed: int,
        sources: tuple[str, ...],
        what: str,
        progress: Callable[[int], None],
    ) -> bool:
        """Whether the file `new` of `size` bytes is in the store now; if not, fetch it whole.

        `needed` are the bytes that are still to come of the whole bundle: where the disk has no
        room for a delta beside them, none is asked for. Nor is one where the file itself has
        begun to come. `progress` is told the bytes of the delta that are there.

        Raises:
            Canceled: the caller asked for an end.
        """
        zstd = find_zstd()
        if zstd is None or size < SMALLEST or self._has_begun(old, new):
            return False
        try:
            self._store.require_space(needed + int(WORTH * size))
        except DeviceError as error:
            log.info("%s: no delta: %s", what, error.message)
            return False
        name = f"delta to {what}"
        delta = self._fetcher.fetch_delta(
            old, new, size=size, sources=sources, what=name, progress=progress
        )
        if delta is None:
            return False
        spent = delta.stat().st_size
        failed = apply_delta(self._store, zstd, delta, old=old, new=new, size=size)
        if failed is not None:
            log.warning("%s: %s", name, failed.detail)
            return False
        self.saved += size - spent
        log.info("%s: %d of %d bytes", name, spent, size)
        return True

    def _has_begun(self, old: Digest, new: Digest) -> bool:
        """Whether something of the file is there, and nothing of a delta.

        Both are where the power went while a delta was applied, or once one broke off.
        """
        part = self._store.part_path(new)
        is_there = part.exists() and part.stat().st_size > 0
        return is_there and not self._store.delta_path(old, new).exists()


def old_files(store: Store, model: str, releases: Iterable[Installed]) -> dict[str, Digest]:
    """The model and weight files of releases of a model that are in the store in the clear."""
    found: dict[str, Digest] = {}
    for installed in releases:
        target = installed.target
        if target.model != model or target.sealed is not None:
            continue
        try:
            manifest = parse_manifest(store.read(target.bundle_sha256))
        except (DeviceError, PeerError):
            continue
        for variant in manifest.variants:
            if variant.name == installed.variant:
                found |= {
                    file.path: file.sha256
                    for file in manifest.files_for(variant)
                    if file.role in (Role.MODEL, Role.WEIGHTS) and store.has(file.sha256)
                }
    return found


def find_zstd() -> Zstd | None:
    """The library that unpacks; None on boards that it is not built for: no deltas there."""
    try:
        from backports import zstd
    except ImportError:
        return None
    return zstd


def apply_delta(
    store: Store, zstd: Zstd, delta: Path, *, old: Digest, new: Digest, size: int
) -> Failed | None:
    """Put the file `new` of `size` bytes into the store; None where that went well.

    The delta is spent by it, and removed.
    """
    what = f"delta {old[:8]} to {new[:8]}"
    try:
        with (
            store.path(old).open("rb", buffering=0) as source,
            delta.open("rb", buffering=0) as packed,
            store.fs.open_resumable(store.part_path(new)) as part,
        ):
            store.fs.truncate(part, 0)
            rebuild(
                zstd,
                delta=lambda at, most: os.pread(packed.fileno(), most, at),
                delta_size=os.fstat(packed.fileno()).st_size,
                old=lambda at, most: os.pread(source.fileno(), most, at),
                old_digest=old,
                new_digest=new,
                new_size=size,
                write=lambda piece: store.fs.write(part, piece),
            )
            store.sync_part(new, part)
        store.admit(new)
    except (Malformed, DeviceError) as error:
        return Failed(error.reason, error.message)
    except OSError as error:
        failure = disk_error(what, error)
        return Failed(failure.reason, failure.message)
    finally:
        store.fs.unlink(delta)
    return None
