"""Gives blobs and deltas to devices over the broker, for those that reach nothing else [wire-9].

A device asks for a window of blocks and gets them one by one: who waits is served in turn, a block
each, so that one with much to fetch does not hold up the others. What waits is bounded for each
device and for all. The shelf is read on worker threads, and nothing is read before the link takes
it: neither ingest nor the broker's memory pays for a slow device.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edgefleet_contract.blocks import BlobRequest, Block, Status
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed, OperatorError, TransientError
from edgefleet_contract.messages import parse
from edgefleet_contract.topics import Channel, match, topic
from edgefleet_fleet.deltas import SOON_S
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.ports import Incoming
from edgefleet_fleet.threads import Threads

log = logging.getLogger("edgefleet.blobs")

PER_DEVICE: Final = 64
"""Blocks that may wait for one device; what is asked for beyond is not heard."""
IN_ALL: Final = 8192
"""Blocks that may wait for all; a device that asks for more is told to come back."""
BUSY_S: Final = 30
_MAX_REQUEST: Final = 4096  # bytes; 64 offsets of ten digits are a quarter of it


@dataclass(frozen=True, slots=True)
class _Wish:
    request: int
    sha256: Digest
    offset: int
    length: int
    base: Digest | None

    def answer(self, status: Status, wait_s: int = 0) -> Block:
        return Block(self.request, self.sha256, status=status, wait_s=wait_s)


class Blobs(Protocol):
    """What is handed out."""

    def size(self, digest: Digest) -> int | None:
        """How many bytes a blob has; None where there is none to be had."""
        ...

    def read(self, digest: Digest, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a part of it."""
        ...


class DeltaFiles(Protocol):
    """The deltas between them."""

    def find(self, old: Digest, new: Digest) -> Path | None:
        """The delta; None where there is none."""
        ...

    def is_coming(self, old: Digest, new: Digest) -> bool:
        """Whether it is being made, or will be."""
        ...


class BlobServer:
    """One queue of wishes for each device. `sent` counts `blocks`, `bytes`, `unknown`, `busy`."""

    def __init__(
        self,
        blobs: Blobs,
        deltas: DeltaFiles,
        *,
        fleet: str,
        in_all: int = IN_ALL,
        threads: Threads | None = None,
    ) -> None:
        self._blobs, self._deltas, self._fleet, self._in_all = blobs, deltas, fleet, in_all
        self._threads = threads or Threads()
        self._waiting: OrderedDict[str, deque[_Wish]] = OrderedDict()
        self._refusals: deque[tuple[str, Block]] = deque(maxlen=1000)
        self._count = 0
        self._more = asyncio.Event()
        self.sent: Counter[str] = Counter()

    def ask(self, message: Incoming) -> None:
        """Hear a request; on the event loop, and never for long."""
        try:
            device, request = self._read(message)
        except Malformed as error:
            log.warning("dropped: %s", error.message)
            return
        queue = self._waiting.get(device, deque())
        # A new number ends what the device asked for under the last one.
        kept = [wish for wish in queue if wish.request == request.request]
        self._count -= len(queue) - len(kept)
        known = {wish.offset for wish in kept}
        new = [offset for offset in dict.fromkeys(request.offsets) if offset not in known]
        new = new[: PER_DEVICE - len(kept)]
        if self._count + len(new) > self._in_all:
            busy = Block(request.request, request.sha256, status=Status.BUSY, wait_s=BUSY_S)
            self._refusals.append((device, busy))
            new = []
        number, digest, length = request.request, request.sha256, request.length
        kept += [_Wish(number, digest, offset, length, request.base) for offset in new]
        self._count += len(new)
        self._put(device, deque(kept))
        self._more.set()

    async def run(self, send: Callable[[str, bytes], Awaitable[None]]) -> None:
        """Serve until cancelled. `send` returns when the link can take more."""
        while True:
            await self._more.wait()
            while self._refusals:
                await self._send(send, *self._refusals.popleft())
            if not self._waiting:
                self._more.clear()
                continue
            device, queue = self._waiting.popitem(last=False)
            wish = queue.popleft()
            self._count -= 1
            self._put(device, queue)
            block = await self._threads.run(self._block, wish)
            if block is not None:
                await self._send(send, device, block)

    def _read(self, message: Incoming) -> tuple[str, BlobRequest]:
        address = match(message.topic)
        if address.fleet != self._fleet or address.channel is not Channel.BLOB_GET:
            raise Malformed(f"topic {message.topic[:80]!r} asks for no blob here")
        if message.retained or len(message.payload) > _MAX_REQUEST:
            raise Malformed(f"{address.device}: a request for blocks that is retained or too long")
        return address.device, parse(BlobRequest, message.payload, device=address.device)

    def _put(self, device: str, queue: deque[_Wish]) -> None:
        """Where a device stands in the row is its own: a new wish does not move it."""
        if queue:
            self._waiting[device] = queue
        else:
            self._waiting.pop(device, None)

    def _block(self, wish: _Wish) -> Block | None:
        """The block, read from the shelf; None where there is nothing to say."""
        try:
            size = self._blobs.size(wish.sha256)
            if size is None:
                return wish.answer(Status.UNKNOWN)
            if wish.base is not None:
                return self._delta_block(wish, wish.base)
            if wish.offset > size:
                return None
            pieces = self._blobs.read(wish.sha256, start=wish.offset, length=wish.length)
            return Block(wish.request, wish.sha256, wish.offset, size, b"".join(pieces))
        except (NotFound, FileNotFoundError):
            return wish.answer(Status.UNKNOWN)
        except TransientError as error:  # who knows whether it may be had does not answer
            log.warning("blob %s waits: %s", wish.sha256[:8], error.message)
            return wish.answer(Status.BUSY, BUSY_S)
        except (OSError, OperatorError) as error:
            log.error("blob %s cannot be read: %s", wish.sha256[:8], error)
            return None

    def _delta_block(self, wish: _Wish, base: Digest) -> Block:
        """Of a delta to a blob that may be had. One that is shorter than it was is none."""
        path = self._deltas.find(base, wish.sha256)
        if path is None:
            is_coming = self._deltas.is_coming(base, wish.sha256)
            return wish.answer(Status.BUSY, SOON_S) if is_coming else wish.answer(Status.UNKNOWN)
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if wish.offset > size:
                return wish.answer(Status.UNKNOWN)
            file.seek(wish.offset)
            data = file.read(wish.length)
        return Block(wish.request, wish.sha256, wish.offset, size, data)

    async def _send(
        self, send: Callable[[str, bytes], Awaitable[None]], device: str, block: Block
    ) -> None:
        await send(topic(self._fleet, device, Channel.BLOB_DATA), block.render())
        self.sent["blocks" if block.status is Status.DATA else block.status.name.lower()] += 1
        self.sent["bytes"] += len(block.data)
