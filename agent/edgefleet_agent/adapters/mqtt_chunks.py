"""Blobs over the device's own MQTT connection, block by block in a window [wire-9].

Nothing here trusts the broker: blocks that were not asked for are dropped, what was lost is asked
for again, and the sink holds every chunk against what was signed. When the link goes, the transfer
waits for it for a while and asks again for what was on its way.
"""

from __future__ import annotations

import heapq
import logging
import queue
import random
import time
from dataclasses import dataclass
from typing import Final, Protocol

from edgefleet_agent.transfer.transport import Intake, Wish
from edgefleet_agent.transfer.window import Window
from edgefleet_contract.blocks import HEADER_BYTES, MAX_OFFSETS, BlobRequest, Block, Status
from edgefleet_contract.bundle import CHUNK_SIZE, Digest
from edgefleet_contract.errors import Malformed, PeerError, TransientError
from edgefleet_contract.messages import render
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import Channel

log = logging.getLogger(__name__)

WINDOW: Final = 16
SILENCE_S: Final = 60.0
"""How long nothing may come before the way is given up: 64 KiB at 1 kB a second."""
AWAY_S: Final = 30.0
"""How long the link may be gone."""
SMALLEST: Final = 4096
"""Bytes of a block, where the broker's packets are small."""
_OVERHEAD: Final = HEADER_BYTES + 512  # the topic and what MQTT puts around it
_LOOK_S: Final = 0.25
SOURCE: Final = "mqtt"


class BlobLink(Protocol):
    """What is needed of the link."""

    @property
    def is_connected(self) -> bool:
        """Whether the broker is reached now."""
        ...

    @property
    def largest_packet(self) -> int:
        """The most bytes that the broker takes in a packet."""
        ...

    def publish(
        self, channel: Channel, payload: bytes, *, retain: bool = False, qos: int = 1
    ) -> object:
        """Send on one of this device's channels."""
        ...


class MqttChunks:
    """`Transport` in band. `arrived` is called by the link's thread, the rest by the transfer's."""

    name = "mqtt"
    is_metered = True

    def __init__(
        self,
        device: str,
        *,
        window: int = WINDOW,
        silence_s: float = SILENCE_S,
        away_s: float = AWAY_S,
    ) -> None:
        self._device, self._most = device, window
        self._silence_s, self._away_s = silence_s, away_s
        self._link: BlobLink | None = None
        self._arrived: queue.Queue[bytes] = queue.Queue(4 * MAX_OFFSETS)

    def attach(self, link: BlobLink) -> None:
        """Use this link; there is none before."""
        self._link = link

    def arrived(self, raw: bytes) -> None:
        """A message of `blob/data`; dropped where more came than anybody asked for."""
        try:
            self._arrived.put_nowait(raw)
        except queue.Full:
            log.debug("a block is dropped: nobody takes them")

    def sources(self, ordered: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - see `Transport`
        """See `Transport`: the broker, while it is reached."""
        return (SOURCE,) if self._link is not None and self._link.is_connected else ()

    def end(self) -> None:
        """See `Transport`."""
        self.arrived(b"")  # wakes the transfer, which then looks whether it is canceled

    def has(self, source: str, digest: Digest) -> bool:  # noqa: ARG002 - see `Transport`
        """See `Transport`: what comes over a network is not for nothing."""
        return False

    def pull(self, source: str, wish: Wish, sink: Intake) -> None:
        """See `Transport`."""
        assert self._link is not None, source
        while not self._arrived.empty():
            self._arrived.get_nowait()
        pull = _Pull(self._link, self._device, wish, sink, Window(self._most))
        quiet, away = time.monotonic(), time.monotonic()
        while not pull.is_done:
            _ = sink.wanted  # raises where the transfer is canceled
            if pull.take(self._next(pull.patience)):
                quiet = time.monotonic()
            if self._link.is_connected:
                away = time.monotonic()
                pull.ask(all_seen=self._arrived.empty())
            else:
                pull.link_is_away()
            if time.monotonic() - away > self._away_s:
                raise TransientError("the broker is not reached")
            if time.monotonic() - quiet > self._silence_s:
                raise TransientError(f"no block came in {self._silence_s:.0f} s")

    def _next(self, patience_s: float) -> bytes | None:
        try:
            return self._arrived.get(timeout=patience_s)
        except queue.Empty:
            return None


@dataclass(slots=True)
class _Asked:
    at: float
    again: bool


class _Pull:
    """The transfer of one blob or delta: what is missing, and what of it was asked for."""

    def __init__(
        self, link: BlobLink, device: str, wish: Wish, sink: Intake, window: Window
    ) -> None:
        self._link, self._device, self._wish = link, device, wish
        self._sink, self._window = sink, window
        self._number = random.getrandbits(32)
        self._length = _block_length(link.largest_packet)
        self._missing: dict[int, int] = {}
        self._to_ask: list[int] = []
        self._asked: dict[int, _Asked] = {}
        self._was_asked: set[int] = set()
        self._size = sink.size
        if self._size is None:  # its first block tells how long it is
            (gap,) = sink.wanted
            self._missing[gap.start] = min(self._length, len(gap))
            self._to_ask.append(gap.start)
        else:
            for gap in sink.wanted:
                self._add(gap)

    @property
    def is_done(self) -> bool:
        """Whether all that was missing came."""
        return not self._missing

    @property
    def _room(self) -> int:
        """How many blocks may be on their way now."""
        most, size = self._sink.at_once, self._window.size
        return size if most is None else min(size, max(1, most // self._length))

    @property
    def patience(self) -> float:
        """How long to wait for the next block before looking around, s."""
        has_room = len(self._asked) < min(self._room, len(self._missing))
        return 0.0 if has_room and self._link.is_connected else _LOOK_S

    def ask(self, *, all_seen: bool) -> None:
        """Ask for what fits the window; what did not come in time counts as lost.

        Not while there are blocks that came and were not looked at (`all_seen`): a cap makes them
        wait here.
        """
        now = time.monotonic()
        late = [o for o, asked in self._asked.items() if now - asked.at > self._window.wait_s]
        if late and all_seen:
            self._forget(late)
            self._window.lost()
        offsets: list[int] = []
        room = self._room
        while self._to_ask and len(self._asked) < room and len(offsets) < MAX_OFFSETS:
            offset = heapq.heappop(self._to_ask)
            if offset in self._missing:
                self._asked[offset] = _Asked(now, offset in self._was_asked)
                self._was_asked.add(offset)
                offsets.append(offset)
        if offsets:
            request = BlobRequest(
                *(self._device, self._number, self._wish.blob, self._length, tuple(offsets)),
                base=self._wish.base,
            )
            self._link.publish(Channel.BLOB_GET, render(request), qos=0)

    def link_is_away(self) -> None:
        """What was on its way will not come."""
        self._forget(list(self._asked))

    def take(self, raw: bytes | None) -> bool:
        """Give a message to the sink; whether it was a block that was missing.

        Raises:
            PeerError: NOT_FOUND, TOO_LARGE, or what the sink raised.
            TransientError: the fleet is busy.
        """
        if not raw:
            return False
        try:
            block = Block.parse(raw)
        except Malformed as error:
            log.warning("%s: %s", self._sink.what, error.message)
            return False
        if (block.request, block.sha256) != (self._number, self._wish.blob):
            return False  # of a transfer that is over
        if block.status is Status.UNKNOWN:
            what = "that delta" if self._wish.base else self._wish.blob[:12]
            raise PeerError(f"the fleet does not have {what}", reason=Reason.NOT_FOUND)
        if block.status is Status.BUSY:
            raise TransientError("the fleet is busy", retry_after_s=float(block.wait_s) or None)
        self._learn_size(block)
        if self._missing.get(block.offset) != len(block.data):
            return False
        del self._missing[block.offset]
        asked = self._asked.pop(block.offset, None)
        self._window.came(
            time.monotonic() - asked.at if asked is not None and not asked.again else None
        )
        self._sink.take(block.offset, block.data)
        return True

    def _learn_size(self, block: Block) -> None:
        if self._size is not None:
            return
        (gap,) = self._sink.wanted
        most = gap.stop
        if block.size > most:
            raise PeerError(
                f"{self._sink.what}: more than the {most} bytes that were announced",
                reason=Reason.TOO_LARGE,
            )
        self._size = block.size
        self._missing = {gap.start: min(self._length, block.size - gap.start)}
        self._add(range(gap.start + self._length, block.size))

    def _add(self, gap: range) -> None:
        for offset in range(gap.start, gap.stop, self._length):
            self._missing[offset] = min(self._length, gap.stop - offset)
            heapq.heappush(self._to_ask, offset)

    def _forget(self, offsets: list[int]) -> None:
        for offset in offsets:
            del self._asked[offset]
            heapq.heappush(self._to_ask, offset)


def _block_length(largest_packet: int) -> int:
    """A chunk, or as many halvings of it as the broker's packets need."""
    length = CHUNK_SIZE
    while length + _OVERHEAD > largest_packet and length > SMALLEST:
        length //= 2
    return length
