"""The front's side of a candidate that runs in shadow: copies of answered requests go to it.

A copy is made after its client was answered, and only for a candidate that has nothing to do: one
copy is with it at a time and none waits, so a slow candidate costs the live requests nothing. Its
answer is no more than the time that it wants to rest, to keep within its share of the processor.
"""

from __future__ import annotations

import asyncio
import random

from edgefleet_agent.runtime.frames import Ask, Copy, pack_copy
from edgefleet_agent.serving.link import DeadlinePassed, Link, NoWorker, QueueFull, WorkerLost
from edgefleet_agent.serving.route import ShadowRoute


class Shadow:
    """One candidate, and its rest."""

    def __init__(self, route: ShadowRoute, link: Link) -> None:
        self.route = route
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._rests_until = 0.0
        self._sending: asyncio.Task[None] | None = None  # held, since the loop does not

    def offer(self, copy: Copy) -> None:
        """Send it, if the candidate is idle and chance picks it; else it is forgotten."""
        if not self._is_idle or random.random() >= self.route.share:
            return
        self._sending = self._loop.create_task(self._send(copy))

    @property
    def _is_idle(self) -> bool:
        if self._sending is not None and not self._sending.done():
            return False
        return (
            self._link.is_up
            and not self._link.outstanding  # one that is overdue
            and self._loop.time() >= self._rests_until
        )

    async def _send(self, copy: Copy) -> None:
        try:
            frame = await self._link.ask(Ask.SHADOW, pack_copy(copy))
        except (QueueFull, NoWorker, DeadlinePassed, WorkerLost):
            return  # the agent finds out what became of it
        self._rests_until = self._loop.time() + int(frame.body) / 1e6

    def close(self) -> None:
        """Hang up."""
        self._link.close()
