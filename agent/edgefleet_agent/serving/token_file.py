"""The file of tokens: read by the front whenever it changed, rewritten by the command line.

It is replaced as a whole, so whoever looks sees the old table or the new one, and its inode tells
them apart: a token that is revoked is refused from the next request on. A file that cannot be
read opens for nobody. Written by root, it stays the agent's: it has the owner of its folder, and
that the owner of the folder above.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.fs import FileSystem, write_durably
from edgefleet_agent.serving.tokens import TokenTable, parse, render
from edgefleet_contract.errors import Malformed, OperatorError

_log = logging.getLogger(__name__)

_NONE: Final = TokenTable()


class TokenFile:
    """The table as it is on the disk now. Costs a `stat` while it does not change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._table = _NONE

    @property
    def table(self) -> TokenTable:
        """What holds now; nobody, where the file is missing or spoilt."""
        try:
            found = self._path.stat()
        except OSError:
            self._stamp, self._table = None, _NONE
            return _NONE
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp != self._stamp:
            self._table = self._read()
            self._stamp = stamp
        return self._table

    def _read(self) -> TokenTable:
        try:
            return parse(self._path.read_bytes(), what=self._path.name)
        except (OSError, Malformed) as error:
            _log.error("the tokens cannot be read, none is taken: %s", error)
            return _NONE


def load(path: Path) -> TokenTable:
    """The table in a file; an empty one where there is none.

    Raises:
        OperatorError: it cannot be read, or is spoilt.
    """
    try:
        return parse(path.read_bytes(), what=str(path))
    except FileNotFoundError:
        return _NONE
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None
    except Malformed as error:
        raise OperatorError(
            error.message, hint="remove the file: its tokens are then refused, make new ones"
        ) from None


@contextmanager
def changing(path: Path) -> Iterator[list[TokenTable]]:
    """The table in a list of one; what stands there at the end is written. One at a time.

    Raises:
        OperatorError: as `load`, or it cannot be written.
    """
    fs, folder = FileSystem(), path.parent
    try:
        prepare_folder(fs, folder)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(f"cannot write {folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = [load(path)]
        yield held
        owner = os.fstat(lock)
        try:
            write_durably(fs, path, render(held[0]), owner=(owner.st_uid, owner.st_gid))
        except OSError as error:
            raise OperatorError(f"cannot write {path}: {error.strerror}") from None
    finally:
        os.close(lock)


def prepare_folder(fs: FileSystem, folder: Path) -> None:
    """Make the folder, mode 0700, of the owner of the one above; an existing one is left alone."""
    if not folder.is_dir():
        fs.mkdir(folder)
        above = folder.parent.stat()
        fs.chown(folder, above.st_uid, above.st_gid)
