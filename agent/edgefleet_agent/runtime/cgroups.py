"""A control group (version 2) for each child that runs a model, where the agent may make them.

    edge-agent.service/           delegated to the agent (`Delegate=yes`)
        agent/                    itself, the front and the zygote
        worker-digits-1234/       memory.max, memory.swap.max 0, memory.oom.group 1

A child that takes more than its bound is ended alone, by the kernel, whatever the rest of the
board has left. Where nothing is delegated, or not the memory controller, the log says so once and
the other bounds (`child.confine`, the order in which the kernel ends processes) stand alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgefleet_agent.runtime.memory import own_groups

_log = logging.getLogger(__name__)

AGENT: Final = "agent"
_DELEGATED: Final = ("user.delegate", "trusted.delegate")
_CHILD: Final = re.compile(r"(worker|trial|shadow)-.*-\d+")


class Leaf:
    """One child's group; it is gone once the child is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def remove(self) -> None:
        """Take it away, once nobody is in it."""
        with contextlib.suppress(OSError):  # then the next start of the agent does
            self._folder.rmdir()


class Cgroups:
    """The groups below `folder`, which is ours. Made by `take_over`.

    Args:
        folder: the group that was delegated.
        bounds: whether memory can be bounded.
    """

    def __init__(self, folder: Path, *, bounds: bool) -> None:
        self.folder, self.bounds = folder, bounds

    def place(self, pid: int, name: str, *, memory_bytes: int = 0) -> Leaf | None:
        """Move a child into a group of its own; None where that fails, and it stays where it is.

        Args:
            pid: of the child, which has not begun yet.
            name: what it is, for people: `worker digits digits@7`.
            memory_bytes: the most that it may have; 0: as much as there is.
        """
        folder = self.folder / f"{re.sub(r'[^A-Za-z0-9.@]+', '-', name)}-{pid}"
        leaf = Leaf(folder)
        try:
            folder.mkdir(exist_ok=True)
            if self.bounds:
                (folder / "memory.max").write_text(str(memory_bytes or "max"))
                (folder / "memory.oom.group").write_text("1")
                with contextlib.suppress(OSError):  # a kernel that does not count swap
                    (folder / "memory.swap.max").write_text("0")
            (folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            _log.warning("%s: no control group of its own: %s", name, error)
            leaf.remove()
            return None
        return leaf


def take_over(groups: Iterable[Path] | None = None) -> Cgroups | None:
    """The delegated group that this process is in, with this process in a leaf of it.

    Args:
        groups: of this process, the innermost first; None: as the kernel says.
    """
    candidates = [
        group
        for group in (own_groups() if groups is None else groups)
        if (group / "cgroup.controllers").exists()
    ]
    folder = next(iter(candidates), None)
    if folder is not None and folder.name == AGENT:  # we were here before
        folder = folder.parent
    if folder is None or not is_delegated(folder):
        _log.info("no control group is delegated to the agent: workers have none of their own")
        return None
    try:
        _clear_away(folder)
        bounds = _arrange(folder)
    except OSError as error:
        _log.warning("control groups cannot be used: %s", error)
        return None
    if not bounds:
        _log.warning("the memory controller is not delegated: a worker's memory has no such bound")
    return Cgroups(folder, bounds=bounds)


def is_delegated(folder: Path) -> bool:
    """Whether whoever manages the tree left this part of it to us.

    systemd marks it, and gives it to the user of the unit. Root may write everywhere, so for root
    the mark alone counts.
    """
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    with contextlib.suppress(OSError):
        return folder.stat().st_uid == os.geteuid() != 0
    return False


def _arrange(folder: Path) -> bool:
    """Move all of us into a leaf: a group with processes can give its children no controller.

    Whether memory can be bounded.
    """
    agent = folder / AGENT
    agent.mkdir(exist_ok=True)
    for pid in (folder / "cgroup.procs").read_text().split():
        (agent / "cgroup.procs").write_text(pid)
    if "memory" not in (folder / "cgroup.controllers").read_text().split():
        return False
    (folder / "cgroup.subtree_control").write_text("+memory")
    return True


def _clear_away(folder: Path) -> None:
    """Remove what an agent that was killed left; those with somebody in them stay."""
    for old in folder.iterdir():
        if old.is_dir() and _CHILD.fullmatch(old.name):
            Leaf(old).remove()
