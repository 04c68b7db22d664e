"""The threads of one fleet: what waits for its data base, shelf or webhooks keeps no other waiting.

Fleets of a site share an event loop. What blocks runs on threads, and each fleet has its own, in
four kinds that do not wait for one another either: requests, the bytes of answers, uploads, and
what the fleet does by itself. Where many ask at once they stand in a row, for as long as it moves;
where no thread of a kind did anything well for some seconds, whoever waits is told so (503). What
the fleet does by itself waits for its turn. A turn is over when its thread is, not when whoever
asked stopped waiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Final, ParamSpec, TypeVar

from edgefleet_contract.errors import TransientError

log = logging.getLogger("edgefleet.threads")

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE_S: Final = 3.0
_RETRY_S: Final = 5
_END: Final = object()


class Kind(StrEnum):
    """What a thread is for."""

    REQUEST = "request"
    STREAM = "stream"
    UPLOAD = "upload"
    OWN = "own"


MOST: Final = {Kind.REQUEST: 16, Kind.STREAM: 8, Kind.UPLOAD: 16, Kind.OWN: 12}
"""How many threads a fleet has of each kind; `OWN` are more than there are loops that use them."""


class Threads:
    """The threads of one fleet; they are started when they are needed."""

    def __init__(self, name: str = "fleet", *, patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._moved = dict.fromkeys(Kind, 0.0)
        self._turns = {kind: asyncio.Semaphore(most) for kind, most in MOST.items()}
        self._pool = ThreadPoolExecutor(sum(MOST.values()), thread_name_prefix=name)
        self._running: set[asyncio.Future[Any]] = set()

    async def ask(self, act: Callable[P, T], /, *args: P.args, **more: P.kwargs) -> T:
        """What a request needs.

        Raises:
            TransientError: there is no thread, and none comes free.
        """
        await self._wait(Kind.REQUEST)
        return await self._run(Kind.REQUEST, functools.partial(act, *args, **more))

    async def upload(self, act: Callable[P, T], /, *args: P.args, **more: P.kwargs) -> T:
        """As `ask`, for what goes on for as long as a client sends."""
        await self._wait(Kind.UPLOAD)
        return await self._run(Kind.UPLOAD, functools.partial(act, *args, **more))

    async def each(self, pieces: Iterator[T]) -> AsyncIterator[T]:
        """The pieces of an answer, each read on a thread."""
        while True:
            await self._turns[Kind.STREAM].acquire()
            piece = await self._run(Kind.STREAM, functools.partial(next, pieces, _END))
            if piece is _END:
                return
            yield piece

    async def run(self, act: Callable[P, T], /, *args: P.args, **more: P.kwargs) -> T:
        """What the fleet does by itself; waits for its turn."""
        await self._turns[Kind.OWN].acquire()
        return await self._run(Kind.OWN, functools.partial(act, *args, **more))

    async def close(self, *, patience_s: float) -> None:
        """Begin nothing more, and wait for what runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=patience_s)
            if late:
                log.warning("%d threads still wait for an answer", len(late))

    async def _wait(self, kind: Kind) -> None:
        if not self._turns[kind].locked():
            await self._turns[kind].acquire()
            return
        begun = time.monotonic()
        turn = asyncio.ensure_future(self._turns[kind].acquire())
        try:
            while not (await asyncio.wait([turn], timeout=self._patience_s))[0]:
                if time.monotonic() - max(begun, self._moved[kind]) >= self._patience_s:
                    raise TransientError(
                        f"all threads of this fleet wait ({kind.value}): data base or shelf hang",
                        hint="try again in a few seconds; the service's log says what is wrong",
                        retry_after_s=_RETRY_S,
                    )
        except BaseException:
            if not turn.cancel():
                self._turns[kind].release()  # it came at this moment
            raise

    async def _run(self, kind: Kind, act: Callable[[], T]) -> T:
        """The turn was taken; it is given back when the thread is done."""
        turn = self._turns[kind]
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        try:
            future: asyncio.Future[T] = loop.run_in_executor(self._pool, context.run, act)
        except RuntimeError:  # closed meanwhile
            turn.release()
            raise self._closed() from None
        self._running.add(future)

        def done(_: object) -> None:
            self._running.discard(future)
            turn.release()
            # Whoever stopped waiting does not ask for the exception: it is asked for here.
            if not future.cancelled() and not isinstance(future.exception(), TransientError):
                self._moved[kind] = time.monotonic()

        future.add_done_callback(done)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled():  # closed before a thread took it
                raise self._closed() from None
            raise

    @staticmethod
    def _closed() -> TransientError:
        return TransientError("this fleet is being taken down", retry_after_s=_RETRY_S)


MINE: Final[ContextVar[Threads]] = ContextVar("threads")
"""The threads of the fleet whose request this is."""
