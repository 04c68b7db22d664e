"""What a transport is asked for, and what it gives what comes to.

A transport moves bytes and judges none of them: the sink knows which are missing, and refuses what
is not what was signed. So a transfer may change its transport between any two chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgefleet_contract.bundle import Digest


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a source: a blob, or with `base` the delta that makes it from that one."""

    blob: Digest
    base: Digest | None = None


class Sink(Protocol):
    """One blob on its way in. `range` is a run of bytes: its start, and the first one after it."""

    @property
    def what(self) -> str:
        """The blob's name for people."""
        ...

    @property
    def size(self) -> int | None:
        """How long the blob is; None where nobody signed that, then `wanted` ends at the most."""
        ...

    @property
    def wanted(self) -> tuple[range, ...]:
        """The bytes that are missing, in order.

        Raises:
            Canceled: somebody wants the transfer to end.
        """
        ...

    def take(self, offset: int, block: bytes) -> None:
        """Bytes of the blob; in any order, more than once, not before they were asked for.

        Raises:
            PeerError: TOO_LARGE, or DIGEST_MISMATCH where they complete a chunk that is not what
                was signed; nothing of it is kept.
            Canceled, AllowanceSpent: the transfer is to end.
        """
        ...


class Intake(Sink, Protocol):
    """A sink as a transport sees it: it may be shut off, and taking may wait for a cap."""

    @property
    def at_once(self) -> int | None:
        """How many bytes may be on their way while a cap holds, a second's worth; None: any.

        What was asked for beyond that would come at once, and wait here for its turn.
        """
        ...


class Transport(Protocol):
    """One road for bytes; one transfer at a time."""

    @property
    def name(self) -> str:
        """The word for it in the configuration and in measurements."""
        ...

    @property
    def is_metered(self) -> bool:
        """Whether its bytes come over the site's uplink: caps and allowances are for these."""
        ...

    def sources(self, ordered: tuple[str, ...]) -> tuple[str, ...]:
        """Where it would look now, the best first; `ordered` are the sources of the order."""
        ...

    def has(self, source: str, digest: Digest) -> bool:
        """Whether the whole blob lies there for nothing: then nobody needs a delta. Asks nobody."""
        ...

    def pull(self, source: str, wish: Wish, sink: Intake) -> None:
        """Give the sink what it wants of what is wished for, as far as the source has it.

        Raises:
            PeerError: NOT_FOUND, or what the sink raised.
            TransientError: it broke off; `retry_after_s` where the source said when to come back.
        """
        ...

    def end(self) -> None:
        """Break off what is under way; from another thread."""
        ...
