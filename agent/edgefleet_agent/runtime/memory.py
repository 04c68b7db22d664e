"""How much memory this process can still get: of the board, and of the control groups above it.

A control group's files (version 2, and the memory controller of version 1) say how much it may
have and has. What it has of the page cache can be taken back, and so counts as available.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import psutil

_UNLIMITED: Final = 2**60
_FILES: Final = {
    "cgroup2": ("memory.max", "memory.current", ("inactive_file", "active_file")),
    "cgroup": (
        *("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("total_inactive_file", "total_active_file"),
    ),
}


def available_bytes() -> int:
    """The least of what the board and each control group above this process can still give."""
    return min(psutil.virtual_memory().available, *map(left_in, own_groups()), _UNLIMITED)


def own_groups(proc: Path = Path("/proc/self")) -> tuple[Path, ...]:
    """The folders that may bound this process: its control group and those above it."""
    found: list[Path] = []
    for line in _read(proc / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        kind = "cgroup" if "memory" in controllers.split(",") else "" if controllers else "cgroup2"
        for mount, root in mounts(kind, "memory" if controllers else "", proc=proc):
            inside = Path(path)
            if root != "/" and inside.is_relative_to(root):  # a container sees a part
                inside = Path("/") / inside.relative_to(root)
            folder = mount / inside.relative_to("/")
            while folder.is_relative_to(mount):
                found.append(folder)
                folder = folder.parent
    return tuple(found)


def mounts(
    kind: str, option: str = "", *, proc: Path = Path("/proc/self")
) -> tuple[tuple[Path, str], ...]:
    """Where file systems of a kind are mounted, with an option where one is asked for, and which
    folder of each is its root there."""
    found = []
    for line in _read(proc / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (fstype, _source, options) = before.split(), after.split(" ", 2)
        if fstype == kind and (not option or option in options.split(",")):
            found.append((Path(fields[4]), fields[3]))
    return tuple(found)


def left_in(group: Path) -> int:
    """What one control group can still give; a very large number where it has no bound."""
    for limit_file, usage_file, cache in _FILES.values():
        with contextlib.suppress(OSError, ValueError):
            limit = int((group / limit_file).read_text())  # `max` is no number
            used = int((group / usage_file).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return max(0, limit - used + sum(int(stat.get(name, 0)) for name in cache))
    return _UNLIMITED


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
