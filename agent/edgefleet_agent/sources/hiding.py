"""Takes the device's keys out of the reach of this process, by Landlock, for good.

A source runs as the same user as the agent, so file modes do not keep it from the keys. Landlock
does: from then on this process, and what it starts, reads and writes only what lies beside the
hidden paths, and may neither trace nor signal a process outside. What is made later in a folder on
the way to a hidden path is out of reach as well. [Linux, Documentation/userspace-api/landlock]
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every processor
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_NO_NEW_PRIVS: Final = 38
_WRITE_FILE, _READ_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 2, 1 << 13, 1 << 14
_SCOPE_SIGNAL: Final = 1 << 1


class CannotHide(Exception):
    """This kernel cannot; the message says why."""


class _Rules(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_version() -> int:
    """What the kernel has of Landlock; 0: nothing."""
    found = ctypes.CDLL(None).syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    return max(0, int(found))


def hide(paths: Iterable[Path]) -> None:
    """Make these, and what is below them, unreadable for this process; others stay as they are.

    Raises:
        CannotHide: the kernel is older than 5.19, or was built without Landlock.
    """
    hidden = {path.resolve() for path in paths if path.exists()}
    if not hidden:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    version = landlock_version()
    if version < 2:  # the first could not move a file to another folder
        raise CannotHide(f"Landlock of version {version}, 2 is needed")
    files = _READ_FILE | _WRITE_FILE | (_TRUNCATE if version >= 3 else 0)
    rules = _Rules(files | _REFER, 0, _SCOPE_SIGNAL if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise CannotHide(f"Landlock: {os.strerror(ctypes.get_errno())}")
    try:
        for path in _beside(Path("/"), hidden):
            _allow(libc, ruleset, path, files)
        if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_RESTRICT, ruleset, 0):
            raise CannotHide(f"Landlock: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(ruleset)


def _beside(folder: Path, hidden: set[Path]) -> Iterable[Path]:
    """What is in a folder on the way to what is hidden, and is not on the way itself."""
    on_the_way = {folder / path.relative_to(folder).parts[0] for path in hidden}
    try:
        found = set(folder.iterdir())
    except OSError:  # a folder that may be crossed and not listed, as /var/lib/private
        found = set()
    yield from found - on_the_way
    for path in on_the_way - hidden:
        yield from _beside(path, {each for each in hidden if each.is_relative_to(path)})


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, files: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # it is gone, or not for us anyway
        return
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            return  # what it leads to is allowed where that stands
        rule = _Beneath(files | (_REFER if stat.S_ISDIR(mode) else 0), fd)
        # What cannot be said of a path (of another kind than a file, or not on a disk) stays shut.
        libc.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)
