"""A worker that loads beside others lets those run first, and stands beside them once it is ready.

Loading is most of a swap's work, and on a board with few cores it is what requests wait for. The
agent does it to its child, from outside, so it can end it where a busy board leaves the child no
time.

How far a process may step back depends on whether it may come forward again. For a lower nice value
it needs RLIMIT_NICE (`LimitNICE=` of the unit) or CAP_SYS_NICE; to leave SCHED_BATCH, nothing.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_POLITE: Final = 19
_CAP_SYS_NICE: Final = 23


@contextmanager
def yielding(pid: int) -> Iterator[Callable[[], None]]:
    """Others run before this child meanwhile. What it gives ends that before its time.

    Threads that the child starts meanwhile are as it is, and come forward with it.
    """
    nice = _nice_of(pid)

    def forward() -> None:
        for thread in _threads(pid):
            with contextlib.suppress(OSError):  # it has ended
                if can_return(nice):
                    os.setpriority(os.PRIO_PROCESS, thread, nice)
                else:
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))

    with contextlib.suppress(OSError):
        if can_return(nice):
            os.setpriority(os.PRIO_PROCESS, pid, _POLITE)
        else:
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield forward
    finally:
        forward()


def hasten(pid: int) -> None:
    """Let a child that was killed end soon: it has to run for that, and one that stands back for
    everybody keeps its memory on a busy board for as long."""
    for thread in _threads(pid):
        with contextlib.suppress(OSError):  # it has ended, or may not come forward
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, 0)


def can_return(nice: int) -> bool:
    """Whether this process and its children may come back to a nice value from a higher one."""
    return resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - nice or _is_capable()


def _nice_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getpriority(os.PRIO_PROCESS, pid)
    return 0


def _is_capable() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_NICE & 1)
    return False


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return []
