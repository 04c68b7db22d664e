"""Makes a file of the store from another one and a delta.

A delta is believed for nothing: what it makes is hashed on the way, and enters the store only under
the digest that a publisher signed. Whatever goes wrong is a value, so that the caller fetches the
whole file instead; what was made until then stays as the beginning of that file, for the chunks of
a whole transfer are held against its list wherever they came from.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgefleet_agent.adapters.store import Store, disk_error
from edgefleet_agent.ports import Failed
from edgefleet_contract.bundle import Digest
from edgefleet_contract.delta_reader import Zstd, rebuild
from edgefleet_contract.errors import DeviceError, Malformed


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
