"""Answers that were given before, for requests that are the same to the byte.

One cache belongs to one worker's entry in the table of routes, so what a version answered goes with
it. Only answers of status 200 are put in, and never those of a stateful model. Bounded in bytes:
what was asked for least recently goes first. No NumPy: it lives in the front.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet_agent.runtime.frames import Ask

_OVERHEAD: Final = 256  # what an entry weighs beside its body, in round figures


@dataclass(frozen=True, slots=True)
class Key:
    """Which request: a digest of what is asked and of the whole body."""

    digest: bytes


class Fate(StrEnum):
    """What became of a request, in the words of RFC 9211; empty where answers are not kept."""

    NONE = ""
    HIT = "hit"
    MISS = "fwd=miss"
    STORED = "fwd=miss; stored"


def say(fate: Fate) -> tuple[tuple[bytes, bytes], ...]:
    """The header `Cache-Status` (RFC 9211), where there is something to say."""
    return ((b"cache-status", f"edgefleet; {fate}".encode()),) if fate else ()


class Cache:
    """At most `limit` bytes of answers. `hits` and `misses` count what was asked of it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._bodies: OrderedDict[Key, bytes] = OrderedDict()  # least recent first
        self.hits = self.misses = 0

    @property
    def size(self) -> int:
        """Bytes that are kept, with what each answer weighs beside its body."""
        return self._size

    def get(self, key: Key) -> bytes | None:
        """The answer to the same request, if it is here; it is then the most recent."""
        body = self._bodies.get(key)
        if body is None:
            self.misses += 1
            return None
        self.hits += 1
        self._bodies.move_to_end(key)
        return body

    def put(self, key: Key, body: bytes) -> bool:
        """Keep an answer; False where it is too large for that."""
        weight = len(body) + _OVERHEAD
        if weight > self._limit:
            return False
        if (old := self._bodies.pop(key, None)) is not None:
            self._size -= len(old) + _OVERHEAD
        self._bodies[key] = body
        self._size += weight
        while self._size > self._limit:
            _, gone = self._bodies.popitem(last=False)
            self._size -= len(gone) + _OVERHEAD
        return True


def key_of(ask: Ask, body: bytes) -> Key:
    """The key of a request; `body` is what the worker would get, so nothing else matters to it."""
    digest = hashlib.sha256(b"%d|" % ask)
    digest.update(body)
    return Key(digest.digest())
