"""What comes first on a board: installs, and then one thing that may be broken off for them.

A measurement takes processor and memory that the trial of an install must have for itself: its
verdict quarantines a bundle, so nothing else may be the cause of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from edgefleet_agent.runtime.process import finish, give_up

T = TypeVar("T")


class GaveWay(Exception):
    """Something more important is done; try again later. The message says what."""


class Precedence:
    """One event loop owns it."""

    def __init__(self) -> None:
        self._firsts = 0
        self._last: asyncio.Task[Any] | None = None
        self._gives_way = False

    @property
    def is_last(self) -> bool:
        """Whether what may be broken off is done now."""
        return self._last is not None

    @asynccontextmanager
    async def first(self) -> AsyncIterator[None]:
        """Do what is important; what is not has ended by then, with all of its processes."""
        self._firsts += 1
        try:
            if (task := self._last) is not None:
                self._gives_way = True
                task.cancel()
                await asyncio.wait([task])
            yield
        finally:
            self._firsts -= 1

    async def last(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do what may be broken off.

        Raises:
            GaveWay: it was, or cannot begin now.
        """
        if self._firsts:
            raise GaveWay("an install is under way")
        if self._last is not None:
            raise GaveWay("another job is measured")
        task = asyncio.ensure_future(begin())
        self._last, self._gives_way = task, False
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if self._gives_way and task.cancelled() and this is not None and not this.cancelling():
                raise GaveWay("an install began") from None
            await finish(give_up(task))
            raise
        finally:
            self._last = None
