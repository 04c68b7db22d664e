"""The requests that have come over a connection: as many as may be run together.

Where they may, what has come is gathered, and for a moment what is still to come. A client that
asks alone would wait for nobody, so a batch is waited for only if there was company just before.
"""

from __future__ import annotations

import select
import time
from typing import Final

from edgefleet_agent.runtime.caller import Caller
from edgefleet_agent.runtime.frames import Frame

_PIECE: Final = 256 * 1024


class Inbox:
    """One connection of the front.

    Args:
        caller: the front.
        limit: how many requests are wanted at once; 1: nothing is waited for.
        delay_s: how long to wait for more at most.
    """

    def __init__(self, caller: Caller, *, limit: int, delay_s: float) -> None:
        self.caller, self._limit, self._delay_s = caller, limit, delay_s
        self._connection, self._reader = caller.socket, caller.reader
        self._had_company = False

    def take(self) -> list[Frame] | None:
        """What has come, none if it is not whole yet; None when the front has gone.

        Call it when there is something to read.

        Raises:
            ConnectionError, BrokenFrame: it is of no more use.
        """
        data = self._connection.recv(_PIECE)
        if not data:
            return None
        frames = list(self._reader.feed(data))
        if self._limit > 1 and frames:
            self._gather(frames)
            self._had_company = len(frames) > 1
        return frames

    def _gather(self, frames: list[Frame]) -> None:
        end = time.monotonic() + self._delay_s
        while len(frames) < self._limit:
            company = self._had_company or len(frames) > 1
            left = max(0.0, end - time.monotonic()) if company else 0.0
            ready, _, _ = select.select([self._connection], [], [], left)
            if not ready:
                return
            data = self._connection.recv(_PIECE)
            if not data:  # what came is answered; the next look finds the end again
                return
            frames += self._reader.feed(data)
