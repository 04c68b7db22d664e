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
        """Believe a signed time, if it is later: for boards without a clock."""
        try:
            told = messages.open_time(raw, self.directors)
        except PeerError as error:
            log.warning("signed time refused: %s", error.message)
            return
        if told.fleet == fleet:
            self.learned_time = max(self.learned_time, told.time)

    async def load(self) -> None:
        """What was accepted in an earlier run, if it still holds; no network."""
        try:
            self.trust = await asyncio.to_thread(
                self._client.cached, now=self.now, floors=self._floors()
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
                trust = await asyncio.to_thread(
                    self._client.refresh, sources, now=self.now, floors=self._floors()
                )
            except TransientError:
                if self.trust is not None and self.now < self.trust.expires:
                    return self.trust
                raise
        self.trust = trust
        return trust

    async def for_order(self, order: messages.Order) -> Trust:
        """What an order is to be judged by: fresh, and at least as new as the order says.

        Raises:
            Unverified, TransientError: as `refresh`; METADATA_ROLLBACK where all is older.
        """
        trust = await self.refresh(order.metadata)
        if trust.versions.timestamp < order.metadata_min:
            raise Unverified(
                f"the order needs timestamp {order.metadata_min},"
                f" {trust.versions.timestamp} is the newest to be had",
                reason=Reason.METADATA_ROLLBACK,
            )
        return trust
