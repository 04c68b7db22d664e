"""The device's durable state on disk: two copies, each with its generation and digest.

A save replaces the older copy and touches the newer one never, so whatever a power cut or a bad
sector does to a write, the state before it can be read. A copy is a line `generation sha256` and
the canonical JSON of a `Device`; the digest covers the generation too, since that decides which
copy counts. Copies of the first agents, whose digest covers the body alone, are still read: a
device would lose more by forgetting its state than by one flipped digit, and the next two saves
replace them. Saving is the commit of an install: when `save` returns, the step has happened.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.fs import FileSystem, read_surely, write_durably
from edgefleet_agent.device import Device
from edgefleet_contract import canonical, codec
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason

log = logging.getLogger(__name__)

COPIES: Final = ("journal.a", "journal.b")
MAX_BYTES: Final = 4 * 1024 * 1024


class Journal:
    """The two copies in a folder. One process at a time opens it (see `lock.py`)."""

    def __init__(self, folder: Path, fs: FileSystem | None = None) -> None:
        self._fs = fs or FileSystem()
        self._paths = tuple(folder / name for name in COPIES)
        self._generation = 0
        self._next = 0

    def load(self) -> Device:
        """The newest state that can be read; an empty one where there is none.

        A copy that makes no sense is set aside under the name `….corrupt` and logged.

        Raises:
            DeviceError: STORAGE_FAILED, where the disk gives an error and there is no other copy.
        """
        best: tuple[int, int, Device] | None = None
        trouble: DeviceError | None = None
        for index, path in enumerate(self._paths):
            try:
                found = self._read(path)
            except OSError as error:
                trouble = DeviceError(
                    f"cannot read the journal {path}: {error.strerror}",
                    reason=Reason.STORAGE_FAILED,
                )
                log.error("%s", trouble.message)
                continue
            if found is not None and (best is None or found[0] > best[0]):
                best = (found[0], index, found[1])
        if best is None:
            if trouble is not None:
                raise trouble
            return Device()
        self._generation = best[0]
        self._next = 1 - best[1]
        for path in self._paths:
            with suppress(OSError):  # a write that a power cut broke off; the next one replaces it
                self._fs.unlink(path.with_name(path.name + ".new"))
        return best[2]

    def save(self, device: Device) -> None:
        """Make a state durable.

        Raises:
            DeviceError: STORAGE_FAILED; the state before is intact.
        """
        generation = self._generation + 1
        body = canonical.render(codec.encode(device))
        header = f"{generation} {_digest(str(generation), body)}\n".encode()
        path = self._paths[self._next]
        try:
            write_durably(self._fs, path, header + body)
        except OSError as error:
            raise DeviceError(
                f"cannot write the journal {path}: {error.strerror}", reason=Reason.STORAGE_FAILED
            ) from error
        self._generation = generation
        self._next = 1 - self._next

    def save_twice(self, device: Device) -> None:
        """Make a state durable in both copies. Raises as `save` does."""
        self.save(device)
        self.save(device)

    def _read(self, path: Path) -> tuple[int, Device] | None:
        try:
            raw = read_surely(self._fs, path)
        except FileNotFoundError:
            return None
        try:
            header, _, body = raw.partition(b"\n")
            generation, _, digest = header.decode("ascii").partition(" ")
            if digest not in (_digest(generation, body), hashlib.sha256(body).hexdigest()):
                raise ValueError("digest")
            value = canonical.parse(body, what="journal", max_bytes=MAX_BYTES)
            return int(generation), codec.decode(Device, value, what="journal", unknown=True)
        except (ValueError, PeerError) as error:
            log.warning("journal copy %s cannot be read (%s): set aside", path.name, error)
            with suppress(OSError):  # on a disk that is read-only it stays where it is
                self._fs.replace(path, path.with_name(path.name + ".corrupt"))
            return None


def _digest(generation: str, body: bytes) -> str:
    return hashlib.sha256(f"{generation} ".encode("ascii") + body).hexdigest()
