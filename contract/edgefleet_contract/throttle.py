"""How often somebody may be wrong: token buckets per client address, and one for all.

Every refused token takes one from the bucket of its address and from the common one; buckets fill
again at a steady rate. Where the bucket of an address is empty, what comes from there is not even
looked at. The common bucket holds back addresses that never brought a right token, so that a
flood of guesses does not lock out those who work here. Pure: the time is an argument. At most
`MAX_ADDRESSES` are remembered; the least recent stranger is forgotten first. An IPv6 address
counts as its /64, which is what one subscriber has.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

MAX_ADDRESSES: Final = 4096


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` failures at once, then `per_second`."""

    burst: float
    per_second: float


PER_ADDRESS: Final = Limit(10, 1 / 6)
FOR_ALL: Final = Limit(200, 20)


@dataclass(slots=True)
class Bucket:
    """How many failures are left at a time, seconds."""

    limit: Limit
    level: float
    at: float
    is_known: bool = False

    def wait(self, now: float) -> float:
        """Seconds until the next try is looked at; 0 for now."""
        passed = max(0.0, now - self.at)
        self.level = min(self.limit.burst, self.level + passed * self.limit.per_second)
        self.at = now
        return 0.0 if self.level >= 1 else (1 - self.level) / self.limit.per_second


@dataclass(slots=True)
class Throttle:
    """Counts failures; safe to call from several threads."""

    per_address: Limit = PER_ADDRESS
    for_all: Limit = FOR_ALL
    max_addresses: int = MAX_ADDRESSES
    _buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)
    _common: Bucket | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, address: str, *, now: float) -> int:
        """Whole seconds that this address has to wait before it may try again; 0 for none."""
        with self._lock:
            bucket = self._buckets.get(_key(address))
            seconds = bucket.wait(now) if bucket is not None else 0.0
            if bucket is None or not bucket.is_known:
                seconds = max(seconds, self._all(now).wait(now))
            return math.ceil(seconds)

    def failed(self, address: str, *, now: float) -> None:
        """This address brought a token that is none."""
        with self._lock:
            for bucket in (self._bucket(_key(address), now), self._all(now)):
                bucket.wait(now)
                bucket.level = max(0.0, bucket.level - 1)

    def succeeded(self, address: str, *, now: float) -> None:
        """This address brought a right token. It does not fill the bucket again."""
        with self._lock:
            self._bucket(_key(address), now).is_known = True

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._buckets)

    def _all(self, now: float) -> Bucket:
        if self._common is None:
            self._common = Bucket(self.for_all, self.for_all.burst, now)
        return self._common

    def _bucket(self, key: str, now: float) -> Bucket:
        found = self._buckets.pop(key, None)
        if found is None:
            found = Bucket(self.per_address, self.per_address.burst, now)
            if len(self._buckets) >= self.max_addresses:
                strangers = (name for name, held in self._buckets.items() if not held.is_known)
                del self._buckets[next(strangers, next(iter(self._buckets)))]
        self._buckets[key] = found
        return found


def _key(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
