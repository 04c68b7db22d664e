"""The front, as a worker sees it: a connection, and the memory that large bodies lie in."""

from __future__ import annotations

import os
import socket
from typing import Final

from edgefleet_agent.runtime.answering import Answered
from edgefleet_agent.runtime.frames import GREETING, FrameReader, header
from edgefleet_agent.runtime.slots import Slots, fits

_JOINED: Final = 64 * 1024
_HELLO_S: Final = 2.0


class Caller:
    """One connection of the front. `reader` makes frames of what comes over `socket`."""

    def __init__(self, connection: socket.socket, slots: Slots) -> None:
        self.socket, self._slots = connection, slots
        self.reader = FrameReader(slots.view)

    def send(self, answers: list[Answered]) -> None:
        """Answer requests: in their slots what is worth it, and what is small in one piece, so that
        the front wakes up once for all.

        Raises:
            ConnectionError: it has gone.
        """
        pieces: list[bytes] = []
        for frame, said in answers:
            size = len(said.body)
            if frame.slot and fits(said.body):
                self._slots.put(frame.slot, said.body)
                pieces.append(header(frame.id, said.code, size, frame.slot))
                continue
            pieces.append(header(frame.id, said.code, size))
            if size <= _JOINED:
                pieces.append(said.body)
                continue
            self.socket.sendall(b"".join(pieces))
            self.socket.sendall(said.body)
            pieces.clear()
        if pieces:
            self.socket.sendall(b"".join(pieces))


def greet(listener: socket.socket) -> Caller | None:
    """A new connection; None where the front died as soon as it had connected."""
    connection, _ = listener.accept()
    pid = str(os.getpid()).encode()
    try:
        slots = _slots_of(connection)
        connection.sendall(header(GREETING, 200, len(pid)) + pid)
    except OSError:
        connection.close()
        return None
    return Caller(connection, slots)


def _slots_of(connection: socket.socket) -> Slots:
    """The shared memory that the front sends first.

    Raises:
        OSError: it does not, or something else.
    """
    connection.settimeout(_HELLO_S)
    _, fds, _, _ = socket.recv_fds(connection, 1, 1)
    connection.settimeout(None)
    if not fds:
        raise ConnectionError("no shared memory was sent")
    try:
        return Slots(fds[0])
    finally:
        os.close(fds[0])
