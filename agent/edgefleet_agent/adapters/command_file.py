"""The log of commands on disk: one file, replaced whole, with the digest of what it says.

Where it cannot be read, or is not what was written, nothing that was issued before now is taken: a
command might have been done already.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.fs import FileSystem, read_surely, write_durably
from edgefleet_agent.commanding import REMEMBERED, CommandLog
from edgefleet_contract import canonical, codec
from edgefleet_contract.commands import MAX_ANSWER_BYTES
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason

log = logging.getLogger(__name__)

FILE: Final = "commands.log"
_MAX_BYTES: Final = REMEMBERED * MAX_ANSWER_BYTES * 2


class CommandFile:
    """The file in the state folder."""

    def __init__(self, folder: Path, fs: FileSystem | None = None) -> None:
        self._fs = fs or FileSystem()
        self._path = folder / FILE

    def load(self, now: int) -> CommandLog:
        """The log as it was saved; an empty one where no command was ever taken."""
        try:
            raw = read_surely(self._fs, self._path)
        except FileNotFoundError:
            return CommandLog()
        except OSError as error:
            log.error("cannot read %s: %s", self._path, error.strerror)
            return CommandLog(not_before=now)
        try:
            digest, _, body = raw.partition(b"\n")
            if digest != hashlib.sha256(body).hexdigest().encode():
                raise ValueError("digest")
            value = canonical.parse(body, what=FILE, max_bytes=_MAX_BYTES)
            return codec.decode(CommandLog, value, what=FILE, unknown=True)
        except (ValueError, PeerError) as error:
            log.warning("%s cannot be read (%s): older commands are not taken", FILE, error)
            return CommandLog(not_before=now)

    def save(self, found: CommandLog) -> None:
        """Make a log durable.

        Raises:
            DeviceError: STORAGE_FAILED; the log before is intact.
        """
        body = canonical.render(codec.encode(found))
        digest = hashlib.sha256(body).hexdigest().encode()
        try:
            write_durably(self._fs, self._path, digest + b"\n" + body)
        except OSError as error:
            raise DeviceError(
                f"cannot write {self._path}: {error.strerror}", reason=Reason.STORAGE_FAILED
            ) from error
