"""Blobs over the device's own MQTT connection, block by block in a window [wire-9].

Nothing here trusts the broker: blocks that were not asked for are dropped, what was lost is asked
for again, and the sink holds every chunk against what was signed. When the link goes, the transfer
waits for it for a while and asks again for what was on its way. The first block is a short one: how
long it takes says how long to wait for the others, on links where one takes ten seconds.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import random
import time
from typing import Final, Protocol

from edgefleet_agent.transfer.flight import Flight
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
"""Bytes of a block, where the broker's packets are small; and of the first one, everywhere."""
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


class _Pull:
    """The transfer of one blob or delta: what is missing, and what of it was asked for."""

    def __init__(
        self, link: BlobLink, device: str, wish: Wish, sink: Intake, window: Window
    ) -> None:
        self._link, self._device, self._wish = link, device, wish
        self._sink, self._window = sink, window
        self._number = random.getrandbits(32)
        self._length = _block_length(link.largest_packet)
        self._flight = Flight(window, self._length)
        self._missing: dict[int, int] = {}
        self._to_ask: list[int] = []
        self._size = sink.size
        self._later = list(sink.wanted)
        """What is missing and waits for the first block: nothing is asked for beside it."""
        if self._later:
            first = self._later[0]
            self._add(first[:SMALLEST])
            self._later[0] = first[SMALLEST:]

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
        has_room = len(self._flight) < min(self._room, len(self._missing))
        return 0.0 if has_room and self._link.is_connected else _LOOK_S

    def ask(self, *, all_seen: bool) -> None:
        """Ask for what fits the window; what did not come in time counts as lost.

        Not while there are blocks that came and were not looked at (`all_seen`): a cap makes them
        wait here.
        """
        now = time.monotonic()
        if all_seen:
            self._ask_again(self._flight.take_late(now=now))
        offsets: list[int] = []
        room = self._room
        while self._to_ask and len(self._flight) < room and len(offsets) < MAX_OFFSETS:
            offset = heapq.heappop(self._to_ask)
            if offset in self._missing:
                self._flight.ask(offset, self._missing[offset], now=now)
                offsets.append(offset)
        for length, same in itertools.groupby(offsets, self._missing.__getitem__):
            request = BlobRequest(
                *(self._device, self._number, self._wish.blob, length, tuple(same)),
                base=self._wish.base,
            )
            self._link.publish(Channel.BLOB_GET, render(request), qos=0)

    def link_is_away(self) -> None:
        """What was on its way will not come."""
        self._ask_again(self._flight.take_all())

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
        now = time.monotonic()
        if self._missing.get(block.offset) != len(block.data):
            self._flight.hear(now=now)
            return False
        del self._missing[block.offset]
        self._flight.came(block.offset, now=now)
        while self._later:
            self._add(self._later.pop(0))
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
        self._missing = {gap.start: min(SMALLEST, block.size - gap.start)}
        self._later = [range(gap.start + SMALLEST, block.size)]

    def _add(self, gap: range) -> None:
        offset = gap.start
        while offset < gap.stop:
            end = min(gap.stop, offset - offset % self._length + self._length)
            self._missing[offset] = end - offset
            heapq.heappush(self._to_ask, offset)
            offset = end

    def _ask_again(self, offsets: list[int]) -> None:
        for offset in offsets:
            heapq.heappush(self._to_ask, offset)


def _block_length(largest_packet: int) -> int:
    """A chunk, or as many halvings of it as the broker's packets need."""
    length = CHUNK_SIZE
    while length + _OVERHEAD > largest_packet and length > SMALLEST:
        length //= 2
    return length
