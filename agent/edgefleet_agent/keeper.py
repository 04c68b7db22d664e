"""Keeps what the publishers say: refreshes it, remembers it, and never believes an older one.

The shell around `adapters/tuf_client.py`. Refreshing happens before an order is judged, once an
hour, and whenever a trust topic changes. Sources are tried in this order: what came over MQTT, the
URLs that the order names, the URL of the enrolment, a stick (`metadata` in the state folder).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.adapters.tuf_client import (
    FolderMetadata,
    HttpMetadata,
    MemoryMetadata,
    MetadataSource,
    TufClient,
)
from edgefleet_contract import messages
from edgefleet_contract.errors import PeerError, TransientError, Unverified
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.orders import Order
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import Trust, TrustFloors

log = logging.getLogger(__name__)

STICK: Final = "metadata"
"""A folder in the state folder where somebody may put a copy of the repository."""


class TrustKeeper:
    """What is believed now, on one event loop. `trust` is None until something was verified.

    Args:
        client: the TUF client.
        state: the state folder.
        url: the repository's base URL from the enrolment; empty where there is none.
        floors: the floors in the journal, asked for at every refresh.
        time_floor: the time floor in the journal, seconds since 1970.
        tls: for https sources.
    """

    def __init__(
        self,
        client: TufClient,
        state: Path,
        *,
        url: str,
        floors: Callable[[], TrustFloors],
        time_floor: Callable[[], int],
        tls: Tls | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._url, self._tls, self._clock = client, url, tls, clock
        self._floors, self._time_floor = floors, time_floor
        self._stick = FolderMetadata(state / STICK)
        self._seen = TrustFloors()
        self._told: tuple[bytes, str] | None = None
        self.learned_time = 0
        self._one_at_a_time = asyncio.Lock()
        self.broker = MemoryMetadata()
        self.trust: Trust | None = None

    @property
    def now(self) -> int:
        """The later of the board's clock and every time that was signed, seconds since 1970."""
        return max(int(self._clock()), self._time_floor(), self.learned_time)

    @property
    def directors(self) -> KeyRing:
        """The keys that may sign orders, as far as is known."""
        return self.trust.director_ring if self.trust else KeyRing()

    @property
    def publishers(self) -> KeyRing:
        """The keys that may sign bundles, as far as is known."""
        return self.trust.publisher_ring if self.trust else KeyRing()

    def learn_time(self, raw: bytes, fleet: str) -> None:
        """Believe a signed time, if it is later: for boards without a clock.

        Not beyond the end of what the publishers say now, which it can bring about and no more: a
        stolen director that tells of the year 2100 costs the news until the next timestamp.
        """
        self._told = raw, fleet
        self._believe()

    def _believe(self) -> None:
        """Judge the signed time by the metadata at hand; after each refresh again."""
        if self._told is None or self.trust is None:
            return
        raw, fleet = self._told
        try:
            told = messages.open_time(raw, self.directors)
        except PeerError as error:
            log.warning("signed time refused: %s", error.message)
            return
        if told.fleet == fleet:
            self.learned_time = max(self.learned_time, min(told.time, self.trust.expires))

    async def load(self) -> None:
        """What was accepted in an earlier run, if it still holds; no network."""
        try:
            self._seen = await asyncio.to_thread(self._client.seen)
            self.trust = await asyncio.to_thread(
                self._client.cached, now=self.now, floors=self._bound
            )
        except (PeerError, TransientError) as error:
            log.info("no usable metadata in the cache: %s", error.message)

    async def refresh(self, urls: tuple[str, ...] = ()) -> Trust:
        """What the publishers say now.

        Raises:
            Unverified: METADATA_EXPIRED, METADATA_ROLLBACK, METADATA_INVALID.
            TransientError: nobody can be asked, and what is known has expired.
        """
        wanted = dict.fromkeys(url for url in (*urls, self._url) if url)
        sources: tuple[MetadataSource, ...] = (
            self.broker,
            *(HttpMetadata(url, self._tls) for url in wanted),
            self._stick,
        )
        async with self._one_at_a_time:
            try:
                trust = await self._ask(sources)
            except TransientError:
                if self.trust is not None and self.now < self.trust.expires:
                    return self.trust
                raise
        self.trust = trust
        self._believe()
        return trust

    async def _ask(self, sources: tuple[MetadataSource, ...]) -> Trust:
        """What the sources say; a clock that lost keys set forward does not count against it."""
        clock, bound = int(self._clock()), self._bound
        ask = partial(self._client.refresh, sources, floors=bound)
        try:
            return await asyncio.to_thread(ask, now=self.now)
        except Unverified as error:
            if error.reason is not Reason.METADATA_EXPIRED or self.now == clock:
                raise
            trust = await asyncio.to_thread(ask, now=clock)
            if not trust.versions.drops_online(bound):
                raise
        self.learned_time = 0
        return trust

    @property
    def _bound(self) -> TrustFloors:
        """What was seen before: by the journal, and by the cache where the journal was lost."""
        return self._floors().merged(self._seen)

    async def for_order(self, order: Order) -> Trust:
        """What an order is to be judged by: fresh, and at least as new as the order says.

        Raises:
            Unverified, TransientError: as `refresh`; METADATA_ROLLBACK where all is older;
                METADATA_EXPIRED where it had ended when the order was signed: then news are held
                back, or the order is dated ahead.
        """
        trust = await self.refresh(order.metadata)
        ahead = max(self.learned_time, order.issued) - trust.expires
        if ahead >= 0:
            raise Unverified(
                f"metadata: the newest to be had ended {ahead} s before the signed time",
                reason=Reason.METADATA_EXPIRED,
            )
        if trust.versions.timestamp < order.metadata_min:
            raise Unverified(
                f"the order needs timestamp {order.metadata_min},"
                f" {trust.versions.timestamp} is the newest to be had",
                reason=Reason.METADATA_ROLLBACK,
            )
        return trust
