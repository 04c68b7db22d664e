"""Shared memory between the front and one worker: large bodies lie in it and are not sent.

The front makes it (a memfd that can neither grow nor shrink, so that neither side can make the
other fault), and sends the descriptor as the first thing on each connection. A slot is the front's
until a frame names it, the worker's until it answers, and then the front's again; the answer may
lie in the slot of its request. What does not fit, or finds no slot free, goes through the socket.

Pages that were touched stay, for the next body; beyond `KEPT` a slot they are given back.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final, TypeAlias

Bytes: TypeAlias = "bytes | memoryview"

COUNT: Final = 2
"""Slots of one connection; they are numbered from 1."""
SIZE: Final = 8 * 1024 * 1024
LEAST: Final = 32 * 1024
"""What is smaller goes through the socket: two short copies are cheaper than two wake-ups late."""
KEPT: Final = 1024 * 1024
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Slots:
    """One side's map of the memory behind a descriptor.

    Args:
        fd: of the memfd; stays the caller's.

    Raises:
        OSError: it is none of the size of ours, or cannot be mapped.
    """

    def __init__(self, fd: int) -> None:
        if os.fstat(fd).st_size != COUNT * SIZE:
            raise OSError("not the shared memory of a front")
        self._memory = mmap.mmap(fd, COUNT * SIZE)

    def put(self, slot: int, body: Bytes) -> None:
        """Lay a body down in a slot."""
        start = (slot - 1) * SIZE
        self._memory[start : start + len(body)] = body

    def view(self, slot: int, size: int) -> memoryview | None:
        """The bytes that lie in a slot, not copied; None where there cannot be so many."""
        if not 1 <= slot <= COUNT or size > SIZE:
            return None
        start = (slot - 1) * SIZE
        return memoryview(self._memory)[start : start + size]

    def clear(self, slot: int, size: int) -> None:
        """Give back what a body of this size took beyond what a slot keeps."""
        if size > KEPT:
            start = (slot - 1) * SIZE + KEPT
            self._memory.madvise(mmap.MADV_REMOVE, start, SIZE - KEPT)


def make() -> int:
    """The descriptor of fresh shared memory; the caller closes it.

    Raises:
        OSError: there are no descriptors left.
    """
    fd = os.memfd_create("edgefleet-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, COUNT * SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def fits(body: Bytes) -> bool:
    """Whether a body is worth a slot, and fits in one."""
    return LEAST <= len(body) <= SIZE
