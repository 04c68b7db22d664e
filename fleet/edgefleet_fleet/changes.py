"""Tells whoever watches (pages, `--watch`) that something changed; what, they ask for themselves.

A watcher that does not keep up loses the oldest notices, never the newest, and costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

_BACKLOG: Final = 256


@dataclass(frozen=True, slots=True)
class Change:
    """A noun (`device`, `rollout`, `bundle`, `claim`, `request`, …) and the id that changed."""

    noun: str
    id: str


class Changes:
    """Notices from any thread to any number of watchers on one event loop."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Queue[Change | None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop on which watchers wait."""
        self._loop = loop

    def tell(self, changes: list[Change]) -> None:
        """Tell every watcher; from any thread."""
        if self._loop is not None and changes:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody watches
                self._loop.call_soon_threadsafe(self._tell, changes)

    def close(self) -> None:
        """End every watch, so that connections close; on the loop."""
        self._is_closed = True
        for queue in self._watchers:
            _put(queue, None)

    async def watch(self, *, every_s: float = 15.0) -> AsyncIterator[Change | None]:
        """Every change from now on; None when nothing happened for `every_s` seconds."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue(_BACKLOG)
        self._watchers.add(queue)
        try:
            while not self._is_closed:
                try:
                    async with asyncio.timeout(every_s):
                        change = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if change is not None:
                    yield change
        finally:
            self._watchers.discard(queue)

    def _tell(self, changes: list[Change]) -> None:
        for queue in self._watchers:
            for change in dict.fromkeys(changes):
                _put(queue, change)


def _put(queue: asyncio.Queue[Change | None], change: Change | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(change)
