"""`Fetcher` over several transports: falls over from one to the next, at the chunk where it broke.

A delta is a favour: it comes over the same transports, within the same caps and allowances, and
whatever goes wrong with it means that there is none, so that the whole file is fetched.

The transports are asked in the order of the configuration, and each for its sources in turn. One
that just failed is asked last for a while; one that said when to come back is left alone until
then. Nothing a source says is believed but bytes that hash to what was signed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.store import Store, disk_error
from edgefleet_agent.ports import AllowanceSpent, Canceled, Moved
from edgefleet_agent.transfer.gather import DIGEST_BYTES, Document, Gather
from edgefleet_agent.transfer.pace import Pace
from edgefleet_agent.transfer.parcel import Parcel
from edgefleet_agent.transfer.transport import Sink, Transport, Wish
from edgefleet_agent.transfer.trouble import Trouble
from edgefleet_contract.bundle import CHUNK_SIZE, Digest
from edgefleet_contract.delta import WORTH
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason

log = logging.getLogger(__name__)

TRIES: Final = 3
"""How often each source is asked for a file before the transfer is put off or given up."""
REST_S: Final = 60.0
"""How long a source that failed is asked after the others."""
PATIENCE_S: Final = 30.0
"""How long a delta that is being made is waited for, in all."""
WORTH_WAITING: Final = 256 * 1024
"""Bytes of a file, from which on."""


class Mover:
    """Brings blobs into a store. One transfer at a time; `cancel` ends it from another thread."""

    def __init__(
        self, store: Store, transports: Sequence[Transport], *, pace: Pace | None = None
    ) -> None:
        self._store = store
        self._transports = tuple(transports)
        self._meter = _Meter(pace or Pace())
        self._canceled = self._meter.canceled
        self._failed: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._moved: Counter[str] = Counter()
        self._deltas = 0

    def cancel(self) -> None:
        """End the transfer at hand, also one that waits for its source."""
        self._canceled.set()
        for transport in self._transports:
            transport.end()

    def resume(self) -> None:
        """Allow transfers again."""
        self._canceled.clear()

    def allow(self, max_bytes: int | None, *, max_bytes_per_s: int = 0) -> None:
        """See `ports.Fetcher`."""
        self._meter.left = max_bytes
        self._meter.pace.lower(max_bytes_per_s)

    def take_moved(self) -> Moved:
        """See `ports.Fetcher`."""
        moved, self._moved = self._moved, Counter()
        deltas, self._deltas = self._deltas, 0
        names = {transport.name for transport in self._transports if transport.is_metered}
        uplink = sum(size for name, size in moved.items() if name in names)
        return Moved(dict(moved), uplink, deltas)

    def fetch(
        self, digest: Digest, *, max_bytes: int, sources: tuple[str, ...], what: str
    ) -> bytes:
        """See `ports.Fetcher`."""
        document = Document(digest, max_bytes=max_bytes, what=what)
        self._move(Wish(digest), document, sources, tries=1)
        return document.raw

    def fetch_file(
        self,
        digest: Digest,
        *,
        size: int,
        chunk_list_sha256: Digest,
        sources: tuple[str, ...],
        what: str,
        progress: Callable[[int], None],
    ) -> int:
        """See `ports.Fetcher`."""
        if self._store.has(digest):
            progress(size)
            return 0
        length = -(-size // CHUNK_SIZE) * DIGEST_BYTES
        table = self.fetch(
            chunk_list_sha256, max_bytes=length, sources=sources, what=f"chunk list of {what}"
        )
        if len(table) != length:
            raise PeerError(
                f"{what}: its chunk list has {len(table)} bytes", reason=Reason.DIGEST_MISMATCH
            )
        fs = self._store.fs
        try:
            with fs.open_resumable(self._store.part_path(digest)) as part:
                gather = Gather(fs, part, size=size, table=table, what=what, progress=progress)
                moved = 0
                if not gather.is_complete:
                    moved = self._move(Wish(digest), gather, sources, tries=TRIES)
                gather.finish(digest)
                self._store.sync_part(digest, part)
        except OSError as error:
            raise disk_error(f"storing {what}", error) from error
        self._store.admit(digest)
        return moved

    def fetch_delta(
        self,
        old: Digest,
        new: Digest,
        *,
        size: int,
        sources: tuple[str, ...],
        what: str,
        progress: Callable[[int], None],
    ) -> Path | None:
        """See `ports.Fetcher`."""
        path, most = self._store.delta_path(old, new), int(WORTH * size)
        patience_s = PATIENCE_S if size >= WORTH_WAITING else 0.0
        roads = self._roads(sources)
        if any(road.has(source, new) for road, source in roads):
            return None
        try:
            parcel = Parcel(self._store.fs, path, most=most, what=what, progress=progress)
            for road, source in roads:
                if self._held.get(source, 0.0) > time.monotonic():
                    continue
                arrived, patience_s = self._move_delta(
                    Wish(new, old), parcel, road, source, patience_s
                )
                if arrived:
                    return path
        except OSError as error:  # the file itself may fit, or its own trouble will tell
            log.warning("storing %s: %s", what, error.strerror)
        return None

    def _move_delta(
        self, wish: Wish, parcel: Parcel, road: Transport, source: str, patience_s: float
    ) -> tuple[bool, float]:
        """Fill the parcel from one source; whether it is full, and the patience that is left.

        A source that breaks off is asked again as long as something comes; one that is making the
        delta, when it said.
        """
        tries = TRIES
        while tries:
            before = parcel.end
            try:
                self._pull(road, source, wish, parcel)
                return True, patience_s
            except PeerError as error:
                if error.reason is not Reason.NOT_FOUND:
                    log.warning("%s: %s", source, error.message)
                    parcel.drop()
                break
            except AllowanceSpent:
                break  # other roads may be free
            except TransientError as error:
                log.info("%s from %s: %s", parcel.what, source, error.message)
                wait_s = error.retry_after_s
                if wait_s and wait_s <= patience_s:
                    patience_s -= wait_s
                    self._canceled.wait(wait_s)
                    continue
                if not wait_s:
                    self._failed[source] = time.monotonic() + REST_S
                tries = tries - 1 if parcel.end > before else 0
        return False, patience_s

    def _pull(self, road: Transport, source: str, wish: Wish, sink: Parcel) -> None:
        valve = _Valve(sink, self._meter, is_metered=road.is_metered)
        sink.begin()
        try:
            _ = valve.wanted  # not where the transfer is canceled already
            road.pull(source, wish, valve)
            sink.settle(source)
        finally:
            self._deltas += valve.seen
            if valve.seen:
                self._moved[road.name] += valve.seen

    def _move(
        self, wish: Wish, sink: Document | Gather, sources: tuple[str, ...], *, tries: int
    ) -> int:
        """Fill the sink; the bytes that were transferred for it."""
        trouble, moved = Trouble(sink.what), 0
        for _ in range(tries):
            for transport, source in self._roads(sources):
                if source in trouble.without:
                    continue
                if (wait := self._held.get(source, 0.0) - time.monotonic()) > 0:
                    busy = TransientError(f"{source} asks to wait {wait:.0f} s", retry_after_s=wait)
                    trouble.passing(source, busy)
                    continue
                valve = _Valve(sink, self._meter, is_metered=transport.is_metered)
                sink.begin()
                try:
                    with (
                        trouble.at(source, is_copy=not transport.is_metered),
                        self._remembered(source),
                    ):
                        _ = valve.wanted  # not where the transfer is canceled already
                        transport.pull(source, wish, valve)
                        sink.settle(source)
                        return moved + valve.seen
                finally:
                    moved += valve.seen
                    if valve.seen:
                        self._moved[transport.name] += valve.seen
        if self._canceled.is_set():
            raise Canceled(sink.what)
        raise trouble.verdict()

    def _roads(self, ordered: tuple[str, ...]) -> list[tuple[Transport, str]]:
        """Whom to ask, in turn: those that failed a moment ago come last."""
        now = time.monotonic()
        found = [(road, source) for road in self._transports for source in road.sources(ordered)]
        return sorted(found, key=lambda road: self._failed.get(road[1], 0.0) > now)

    @contextmanager
    def _remembered(self, source: str) -> Iterator[None]:
        try:
            yield
        except AllowanceSpent:
            raise
        except TransientError as error:
            now = time.monotonic()
            self._failed[source] = now + REST_S
            if error.retry_after_s:
                self._held[source] = now + error.retry_after_s
            raise
        self._failed.pop(source, None)


class _Meter:
    """What the transfers of a device share: whether to end, their pace, their allowance."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.canceled = threading.Event()
        self.left: int | None = None

    def check(self, what: str, *, is_metered: bool) -> None:
        """Nothing, if the transfer may go on."""
        if self.canceled.is_set():
            raise Canceled(what)
        if is_metered and self.left is not None and self.left <= 0:
            raise AllowanceSpent(f"{what}: the bytes that it may take now are spent")

    @property
    def at_once(self) -> int | None:
        """See `Intake`."""
        return self.pace.cap(time.localtime().tm_hour) or None

    def pay(self, size: int) -> None:
        """Wait as long as the cap says; a transfer that is canceled does not wait."""
        if self.left is not None:
            self.left -= size
        wait_s = self.pace.pay(size, now=time.monotonic(), hour=time.localtime().tm_hour)
        if wait_s > 0:
            self.canceled.wait(wait_s)


class _Valve:
    """A sink as a transport sees it: what goes through is counted, and can be shut off."""

    def __init__(self, sink: Sink, meter: _Meter, *, is_metered: bool) -> None:
        self._sink, self._meter, self._is_metered = sink, meter, is_metered
        self.what, self.size = sink.what, sink.size
        self.seen = 0

    @property
    def wanted(self) -> tuple[range, ...]:
        """See `Sink`."""
        self._meter.check(self.what, is_metered=self._is_metered)
        return self._sink.wanted

    @property
    def at_once(self) -> int | None:
        """See `Intake`."""
        return self._meter.at_once if self._is_metered else None

    def take(self, offset: int, block: bytes) -> None:
        """See `Sink`."""
        self._meter.check(self.what, is_metered=self._is_metered)
        self.seen += len(block)
        self._sink.take(offset, block)
        if self._is_metered:
            self._meter.pay(len(block))
