"""The front's side of one worker: a bounded FIFO, a connection, and what happens when it breaks.

At most `WINDOW` runs of the model are with the worker at a time, so that it never waits for the
front and a crash concerns few: as many requests, or as many times those that may run together.
Large bodies go through shared memory (`slots`), which is new with every connection.

When a worker dies, each request that it may have been at is a suspect: it is sent once more to the
next one, and alone, so that a second death tells which one it was (not twice more) and concerns
nobody else. The others are sent as if they had never been.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from edgefleet_agent.runtime.frames import GREETING, Ask, BrokenFrame, Frame, FrameReader, header
from edgefleet_agent.runtime.slots import COUNT, Slots, fits, make

WINDOW: Final = 2
_RECONNECT_S: Final = 0.05


class QueueFull(Exception):
    """As many requests wait as may."""


class NoWorker(Exception):
    """No worker came back in time."""


class DeadlinePassed(Exception):
    """The worker did not answer in time."""


class WorkerLost(Exception):
    """The worker died over this request; twice, where it is asked again."""


@dataclass(slots=True, eq=False)
class _Pending:
    id: int
    ask: Ask
    body: bytes
    answer: asyncio.Future[Frame]
    expiry: asyncio.TimerHandle | None = None
    died: int = 0
    slot: int = 0


class Link:
    """The queue and the connection of one worker.

    Args:
        path: the worker's socket, on which the agent listens even while the worker is down.
        limit: how many requests may wait.
        deadline_s: how long one may take, and how long one may run before the worker is `stuck`.
        on_stuck: called with the worker's pid when it overran.
        on_idle: called when nothing is outstanding any more, once draining.
        asks_again: whether the next worker is asked what a dead one did not answer.
        together: how many requests the worker may run together.
    """

    def __init__(
        self,
        path: str,
        *,
        limit: int,
        deadline_s: float,
        on_stuck: Callable[[int], None],
        on_idle: Callable[[], None],
        asks_again: bool = True,
        together: int = 1,
    ) -> None:
        self._asks_again = asks_again
        self._path, self._limit, self.deadline_s = path, limit, deadline_s
        self._on_stuck, self._on_idle = on_stuck, on_idle
        self._together, self._window = together, WINDOW * together
        self._waiting: deque[_Pending] = deque()
        self._sent: deque[_Pending] = deque()
        self._head_since = 0.0
        self._last_id = GREETING
        self._transport: asyncio.Transport | None = None
        self._slots: Slots | None = None
        self._free: list[int] = []
        self._pid = 0
        self._draining = False
        self._closed = False
        self._up = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._connecting = self._loop.create_task(self._connect())

    @property
    def is_up(self) -> bool:
        """Whether a worker is connected and has greeted."""
        return self._up.is_set()

    @property
    def outstanding(self) -> int:
        """Requests without an answer."""
        return len(self._waiting) + len(self._sent)

    @property
    def has_room(self) -> bool:
        """Whether a worker is there and one more request may wait for it."""
        return self.is_up and len(self._waiting) < self._limit

    async def wait_up(self, timeout_s: float) -> bool:
        """Whether the worker greets within this time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), timeout_s)
        return self.is_up

    async def ask(self, ask: Ask, body: bytes, *, deadline_s: float | None = None) -> Frame:
        """The worker's answer, within its deadline or another one.

        Raises:
            QueueFull, NoWorker, DeadlinePassed, WorkerLost: see there.
        """
        if len(self._waiting) >= self._limit:
            raise QueueFull
        self._last_id += 1
        pending = _Pending(self._last_id, ask, body, self._loop.create_future())
        within_s = self.deadline_s if deadline_s is None else deadline_s
        pending.expiry = self._loop.call_later(within_s, self._expire, pending)
        self._waiting.append(pending)
        self._pump()
        return await pending.answer

    def drain(self) -> None:
        """Take no more; `on_idle` is called when all is answered (at once if nothing waits).

        Where no worker ever came, none is waited for.
        """
        if not self._pid:
            for pending in self._waiting:
                _fail(pending, NoWorker())
            self._waiting.clear()
        self._draining = True
        self._settle()

    def close(self) -> None:
        """Give up what is outstanding and hang up."""
        self._closed = True
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._give_up(NoWorker)

    def _give_up(self, error: type[Exception]) -> None:
        for pending in (*self._sent, *self._waiting):
            _fail(pending, error())
        self._sent.clear()
        self._waiting.clear()

    async def _connect(self) -> None:
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            try:
                await self._loop.sock_connect(sock, self._path)
                wire = partial(_Wire, self, _hand_over(sock))
                await self._loop.create_unix_connection(wire, sock=sock)
            except OSError:
                sock.close()
                await asyncio.sleep(_RECONNECT_S)
            except BaseException:
                sock.close()
                raise
            else:
                return

    def _pump(self) -> None:
        while self.is_up and self._waiting and len(self._sent) < self._window:
            pending = self._waiting[0]
            if self._sent and (pending.died or self._sent[0].died):
                break  # a suspect is alone with the worker
            self._waiting.popleft()
            if pending.answer.done():  # expired, or its client left
                continue
            assert self._transport is not None
            self._sent.append(pending)
            if len(self._sent) == 1:
                self._watch()
            self._send(pending, self._transport)
        self._settle()

    def _send(self, pending: _Pending, transport: asyncio.Transport) -> None:
        body = pending.body
        if self._slots is not None and self._free and fits(body):
            pending.slot = self._free.pop()
            self._slots.put(pending.slot, body)
            transport.write(header(pending.id, pending.ask, len(body), pending.slot))
            return
        pending.slot = 0
        transport.write(header(pending.id, pending.ask, len(body)))
        transport.write(body)

    def _take(self, pending: _Pending, frame: Frame) -> Frame:
        """An answer of our own; its slot is free again.

        Raises:
            BrokenFrame: it lies in another slot than that of its request.
        """
        if frame.slot not in (0, pending.slot):
            raise BrokenFrame(f"answer {frame.id} in slot {frame.slot}")
        if not pending.slot:
            return frame
        assert self._slots is not None
        answer = Frame(frame.id, frame.code, bytes(frame.body)) if frame.slot else frame
        self._slots.clear(pending.slot, max(len(pending.body), len(answer.body)))
        self._free.append(pending.slot)
        return answer

    def _watch(self) -> None:
        """Note when the worker begins with its next request: it may run, not wait, so long."""
        self._head_since = self._loop.time()

    def _settle(self) -> None:
        if self._draining and not self.outstanding:
            self._draining = False
            self._on_idle()

    def _expire(self, pending: _Pending) -> None:
        if pending in self._waiting:
            self._waiting.remove(pending)
        _fail(pending, DeadlinePassed() if self.is_up else NoWorker())
        if self._sent:
            self._check_stuck(self._sent[0])
        self._settle()

    def _check_stuck(self, head: _Pending) -> None:
        if self._closed or not self._sent or self._sent[0] is not head:
            return
        over = self._head_since + self.deadline_s - self._loop.time()
        if over <= 0.001:
            self._on_stuck(self._pid)
        else:
            self._loop.call_later(over, self._check_stuck, head)

    def connected(self, transport: asyncio.Transport) -> None:
        """A worker will greet; nobody waits for it where this was closed meanwhile."""
        self._transport = transport
        if self._closed:
            transport.abort()

    def greeted(self, transport: asyncio.Transport, pid: int, slots: Slots) -> None:
        """A worker is there."""
        self._transport, self._pid = transport, pid
        self._slots, self._free = slots, list(range(1, COUNT + 1))
        self._up.set()
        self._pump()

    def answered(self, frame: Frame) -> None:
        """The worker answers in the order in which it was asked."""
        if not self._sent or self._sent[0].id != frame.id:
            raise BrokenFrame(f"answer {frame.id} to a question that was not asked")
        pending = self._sent.popleft()
        frame = self._take(pending, frame)
        if self._sent:
            self._watch()
        if not pending.answer.done():
            pending.answer.set_result(frame)
        if pending.expiry is not None:
            pending.expiry.cancel()
        self._pump()

    def lost(self) -> None:
        """The connection broke: what was not answered is asked again, suspects for a last time."""
        self._up.clear()
        self._transport = self._slots = None
        if self._closed:
            return
        if not self._asks_again:
            self._give_up(WorkerLost)
        # The worker takes them in order, and so many at once: it was at none behind these.
        for suspect in list(self._sent)[: self._together]:
            suspect.died += 1
            if suspect.died > 1:
                self._sent.remove(suspect)
                _fail(suspect, WorkerLost())
        while self._sent:
            self._waiting.appendleft(self._sent.pop())
        self._connecting = self._loop.create_task(self._connect())
        self._settle()


def _fail(pending: _Pending, error: Exception) -> None:
    if pending.expiry is not None:
        pending.expiry.cancel()
    if not pending.answer.done():
        pending.answer.set_exception(error)


def _hand_over(sock: socket.socket) -> Slots:
    """The shared memory of a fresh connection; the worker gets it as the first byte.

    Raises:
        OSError: no memory, no descriptors, or the worker has gone.
    """
    fd = make()
    try:
        slots = Slots(fd)
        socket.send_fds(sock, [b"\0"], [fd])
        return slots
    finally:
        os.close(fd)


class _Wire(asyncio.Protocol):
    def __init__(self, link: Link, slots: Slots) -> None:
        self.link, self.slots = link, slots
        self.reader = FrameReader(slots.view)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.link.connected(transport)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        try:
            for frame in self.reader.feed(data):
                if frame.id == GREETING:
                    self.link.greeted(self.transport, int(bytes(frame.body)), self.slots)
                else:
                    self.link.answered(frame)
        except (BrokenFrame, ValueError):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self.link.lost()
