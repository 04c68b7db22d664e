"""Worker processes end with the process that started them, whenever that is killed. Linux.

The kernel kills a worker whose parent dies (prctl(2), PR_SET_PDEATHSIG), from when it has asked for
that. Whether the parent had died before, while the worker was starting, is told by the standard
input: a pipe that nobody else has the other end of.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(*, has_pipe: bool = True) -> None:
    """Ask for it, and end here where it is too late. Nothing can be read from stdin afterwards.

    Args:
        has_pipe: stdin is a pipe from the parent.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not has_pipe:
        return
    watch = select.poll()
    watch.register(0, 0)  # that the other end is closed is always told
    if any(event & select.POLLHUP for _, event in watch.poll(0)):
        os._exit(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
