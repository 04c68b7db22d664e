"""What the control room needs from the world, one to five methods each, and what crosses.

The store is not behind a port of ours: SQLAlchemy is one (SQLite and PostgreSQL run the same
tests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from edgefleet_contract.bundle import Digest


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message from the broker, not looked at yet."""

    topic: str
    payload: bytes
    retained: bool = False


class Readable(Protocol):
    """Anything that gives bytes until there are none."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


class Shelf(Protocol):
    """Keeps blobs by their SHA-256; what it returns has that digest unless the disk went bad."""

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        ...

    def put(self, digest: Digest, source: Readable, *, max_bytes: int) -> int:
        """Take a blob; its size. Its digest is checked before it becomes visible.

        Raises:
            Malformed: DIGEST_MISMATCH, or TOO_LARGE.
            OperatorError: the disk is full or cannot be written.
        """
        ...

    def size(self, digest: Digest) -> int | None:
        """The size of a blob, bytes; None where it is not there."""
        ...

    def remove(self, digest: Digest) -> None:
        """Take a blob away, if it is there."""
        ...

    def digests(self, *, before: float | None = None) -> Iterator[Digest]:
        """Every blob that is there, in the order of the digests; only what was put before a time,
        where one is given (seconds since 1970)."""
        ...

    def read(self, digest: Digest, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a blob, from `start`, in pieces.

        Raises:
            NotFound: it is not there.
        """
        ...


class BrokerLink(Protocol):
    """The fleet's connection to the broker.

    `run` stays connected until it is cancelled: it hands every batch of messages to `take` and
    acknowledges them only after `take` returned; after each connect it calls `connected`. Requests
    for blocks of blobs go to `asked` instead.
    """

    async def run(
        self,
        *,
        take: Callable[[list[Incoming]], None],
        connected: Callable[[], None],
        asked: Callable[[Incoming], None],
    ) -> None:
        """Stay connected; `take` and `connected` are called on worker threads, `asked` is not."""
        ...

    async def send(self, topic: str, payload: bytes) -> None:
        """Publish once, QoS 0; waits while the link is full, dropped where there is none."""
        ...

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish retained, QoS 1, from any thread; lost where there is no connection.

        That is not a loss: whoever is told `connected` publishes the whole level again.
        """
        ...

    def publish_once(self, topic: str, payload: bytes, *, expires_s: int) -> None:
        """Publish, QoS 1, from any thread, for devices that are away no longer than that; lost
        where there is no connection."""
        ...

    def kept(self, pattern: str, *, until: str, timeout_s: float) -> dict[str, bytes]:
        """What the broker keeps under a pattern, by topic; from any thread but the link's own.

        `until` is a topic outside the pattern that is retained for certain.

        Raises:
            TimeoutError: the broker did not answer in time.
        """
        ...

    @property
    def is_connected(self) -> bool:
        """Whether the broker answers now."""
        ...
