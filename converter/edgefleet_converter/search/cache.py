"""Results of builds and searches by the digest of all that they follow from: a next run resumes.

A folder of entries. One that cannot be read is made anew. Entries are written beside their place
and renamed; the oldest go where the folder outgrows its limit. What is signed may come from here,
so a folder that somebody else could have written to is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgefleet_contract.canonical import Json
from edgefleet_converter.search.entry import Entry, read_entry

VARIABLE: Final = "EDGE_CONVERT_CACHE"
LIMIT_BYTES: Final = 1 << 30
_SUFFIX: Final = ".entry"
_BEGUN: Final = ".new-"
_STALE_S: Final = 86_400


def cache_folder(environ: Mapping[str, str]) -> Path:
    """`EDGE_CONVERT_CACHE`, or the user's cache folder (XDG Base Directory)."""
    if said := environ.get(VARIABLE):
        return Path(said)
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edge-convert" / "results"


def digest_of(value: Mapping[str, Json]) -> str:
    """The key of what follows from these values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Cache:
    """A folder of entries. One that cannot be written to holds nothing, and that is no error.

    Without a folder nothing is kept.
    """

    def __init__(self, folder: Path | None, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.is_there = folder is not None
        self._folder = folder if folder is not None else Path("/nonexistent")
        self._limit = limit_bytes

    def get(self, key: str) -> Entry | None:
        """The entry of a key, if it is there and whole."""
        if not self.is_there or not _is_ours(self._folder):
            return None
        path = self._folder / f"{key}{_SUFFIX}"
        entry = read_entry(path)
        if entry is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # used just now
        return entry

    def put(self, key: str, made: Path) -> None:
        """Keep a file that a worker made."""
        if not self.is_there:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not _is_ours(self._folder):
                return
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=_BEGUN)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(made.read_bytes())
                Path(name).replace(self._folder / f"{key}{_SUFFIX}")
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise

    def trim(self) -> None:
        """Remove the entries that were not used for longest, down to the limit; and wreckage."""
        if not self.is_there or not _is_ours(self._folder):
            return
        with contextlib.suppress(OSError):
            for path in self._folder.glob(f"{_BEGUN}*"):  # of a program that was killed
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink(missing_ok=True)
            found = [(path, path.stat()) for path in self._folder.glob(f"*{_SUFFIX}")]
            room = self._limit
            for path, stat in sorted(found, key=lambda one: -one[1].st_mtime_ns):
                room -= stat.st_size
                if room < 0:
                    path.unlink(missing_ok=True)


def _is_ours(folder: Path) -> bool:
    """Whether the folder is this user's, and nobody else may write to it."""
    try:
        stat = folder.stat()
    except OSError:
        return False
    return stat.st_uid == os.geteuid() and not stat.st_mode & 0o022
