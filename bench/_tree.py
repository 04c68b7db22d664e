"""A process and all that it started: what they weigh, use and how often they wake, from /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: proportional and resident memory, MiB; CPU, s; times it went to sleep.

    A process that goes to sleep of its own accord (a voluntary context switch) was woken before.
    """

    pss_mib: float
    rss_mib: float
    cpu_s: float
    sleeps: int


def members(pid: int) -> list[psutil.Process]:
    """The process and its descendants; those that end meanwhile are left out."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def costs(pid: int) -> dict[int, Cost]:
    """Of each member, by pid."""
    found: dict[int, Cost] = {}
    for process in members(pid):
        with contextlib.suppress(OSError, psutil.Error):
            found[process.pid] = _cost(process.pid)
    return found


def pss_mib(pid: int) -> float:
    """Of the whole tree."""
    return sum(cost.pss_mib for cost in costs(pid).values())


def cpu_s(pid: int) -> float:
    """Of the members that live."""
    return sum(cost.cpu_s for cost in costs(pid).values())


def run_ns(pid: int) -> int:
    """Nanoseconds that the threads of the tree have run; those that ended are left out."""
    total = 0
    for process in members(pid):
        for file in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(file.read_text().split()[0])
    return total


def label(pid: int) -> str:
    """What a process is called: `edge-worker`, or the last word of its program."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "gone"


def _cost(pid: int) -> Cost:
    proc = Path(f"/proc/{pid}")
    memory = {
        line.split(":")[0]: int(line.split()[1]) * 1024
        for line in (proc / "smaps_rollup").read_text().splitlines()[1:]
    }
    used = (proc / "stat").read_text().rpartition(")")[2].split()
    ticks = int(used[11]) + int(used[12])
    sleeps = 0
    for status in proc.glob("task/*/status"):
        with contextlib.suppress(OSError):
            words = status.read_text().rpartition("\nvoluntary_ctxt_switches:")[2].split()
            sleeps += int(words[0])
    return Cost(
        memory["Pss"] / _MIB, memory["Rss"] / _MIB, ticks / os.sysconf("SC_CLK_TCK"), sleeps
    )


@contextlib.contextmanager
def ended(pid: int) -> Iterator[None]:
    """At the end, the process and all that it started are gone: asked first, then killed."""
    try:
        yield
    finally:
        left = members(pid)
        for process in left[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(left, timeout=10)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)


def until(
    is_so: Callable[[], bool], what: str, timeout_s: float = 60, *, pause_s: float = 0.02
) -> None:
    """Return once it holds.

    Raises:
        TimeoutError: naming what was waited for.
    """
    end = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(pause_s)
