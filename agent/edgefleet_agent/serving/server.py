"""The HTTP server of the front: uvicorn, which sleeps until somebody asks.

uvicorn's own loop wakes ten times a second, to see whether it should end and to write the date. On
a board that idles these are nearly all the wake-ups that there are. Here who ends it says so, and
the date is written when an answer is.
"""

from __future__ import annotations

import asyncio
from types import FrameType

import uvicorn


class QuietServer(uvicorn.Server):
    """To be made on the loop that serves, with `date_header` off."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()

    async def main_loop(self) -> None:
        """Until `stop`, or a signal."""
        await self._over.wait()

    def stop(self) -> None:
        """Finish what is being answered, and end."""
        self.should_exit = True
        self._over.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn does, and wake."""
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._over.set)
