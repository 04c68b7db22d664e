"""Folders to work in, locked as long as somebody does: what killed programs left is found and goes.

Scratch folders hold copies of models and of the data. A program that ends takes its own with it; of
one that was killed they stay, and the next program removes them. Nothing but the standard library:
toolchains import it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "edge-convert."
"""Of scratch folders, in the folder for temporary files."""

_YOUNG_S: Final = 10


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for temporary files, gone afterwards."""
    with locked_folder(Path(tempfile.gettempdir()), PREFIX) as folder:
        yield folder


@contextmanager
def locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, gone afterwards if it is still there under its name.

    Removes those with this prefix in which nobody works.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path, prefix: str) -> None:
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            told = os.fstat(lock)
            if told.st_uid != os.geteuid() or time.time() - told.st_mtime < _YOUNG_S:
                continue  # of somebody else; or made just now, and not locked yet
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # somebody works in it
        finally:
            os.close(lock)


def write_whole(path: Path, raw: bytes) -> None:
    """Write a file whole or not at all. One that is there is replaced.

    Raises:
        OSError: it cannot be written.
    """
    place = path.resolve()
    fd, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(place)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink(missing_ok=True)
        raise
