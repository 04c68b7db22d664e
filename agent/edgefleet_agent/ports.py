"""What the agent needs from the world, one to five methods each, and the values that cross.

The shell performs what the install machine decided through these; adapters and the runtime
implement them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgefleet_contract.bundle import Digest, Limits, Variant
from edgefleet_contract.reasons import Reason

if TYPE_CHECKING:
    # For types only: every worker imports this file, and has no use for a crypto library.
    from edgefleet_contract.messages import Order, Phase


class Canceled(Exception):
    """The caller asked for an end to a transfer."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A step that did not work: the reason crosses the wire, the detail is for people."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A verified model file in the store, and all that is needed to run and to judge it.

    `slot` is the name under which it is served. `engine` is the runtime that was chosen.
    `model_path` and `golden_path` are files of the content-addressed store (read-only; never
    written again); `limits` is the signed envelope for this board, if the publisher gave one.
    """

    slot: str
    model: str
    version: int
    bundle_sha256: Digest
    variant: Variant
    engine: str
    model_path: Path
    model_sha256: Digest
    golden_path: Path
    labels_path: Path | None = None
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What the trial measured: load and first answer, ms; one inference, µs; peak memory, MiB."""

    vectors: int
    max_abs_err: float
    load_ms: float
    p50_us: float
    p95_us: float
    ram_mib: float


@dataclass(frozen=True, slots=True)
class SlotStats:
    """Counts of one slot since its present version began to serve; latencies of the last interval.

    `ready` says that a worker answers; `restarts` counts workers that died since activation.
    """

    slot: str
    model: str
    version: int
    variant: str
    engine: str
    ready: bool
    requests: int
    failures: int
    restarts: int
    interval_requests: int
    latency_p50_us: int
    latency_p95_us: int
    worker_rss_bytes: int


class ModelHost(Protocol):
    """Runs models: trials, the swap, the workers. One owner, on one event loop."""

    async def trial(self, spec: ModelSpec, *, timeout_s: float) -> TrialReport | Failed:
        """Load the model in a process of its own and hold it against its golden vectors."""
        ...

    async def activate(self, specs: tuple[ModelSpec, ...]) -> Failed | None:
        """Make these serve, all or none, without a lost request; what served before drains."""
        ...

    async def deactivate(self, slot: str) -> None:
        """Stop serving a slot; unknown slots are no error."""
        ...

    def stats(self, *, new_interval: bool = False) -> tuple[SlotStats, ...]:
        """The counts of every slot; `new_interval` begins a new latency interval."""
        ...


class Reporter(Protocol):
    """Tells the fleet how an install goes. Called on the event loop; must not block."""

    def step(
        self,
        order: Order | None,
        phase: Phase,
        reason: Reason | None,
        detail: str,
        measurements: dict[str, float],
    ) -> None:
        """A step was made, or an order refused (`order` is None where it is nobody's)."""
        ...

    def state(self) -> None:
        """What serves has changed."""
        ...


class Fetcher(Protocol):
    """Brings blobs into the store by digest; what it returns has that digest."""

    def cancel(self) -> None:
        """Make the transfer at hand, in another thread, raise `Canceled` soon."""
        ...

    def resume(self) -> None:
        """Allow transfers again."""
        ...

    def fetch(
        self, digest: Digest, *, max_bytes: int, sources: tuple[str, ...], what: str
    ) -> bytes:
        """A small document, whole, not stored.

        Raises:
            TransientError: no source could be reached; try later.
            PeerError: NOT_FOUND, TOO_LARGE or DIGEST_MISMATCH.
        """
        ...

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
        """A file into the store, resumed from what is there; the bytes that were transferred.

        Raises:
            TransientError: the transfer broke off; what arrived stays for the next try.
            PeerError: NOT_FOUND or DIGEST_MISMATCH.
            DeviceError: NO_SPACE or STORAGE_FAILED.
        """
        ...


class DeltaSource(Protocol):
    """Brings deltas, which nobody vouches for: what they make is held against its digest."""

    def cancel(self) -> None:
        """Make the transfer at hand, in another thread, raise `Canceled` soon."""
        ...

    def resume(self) -> None:
        """Allow transfers again."""
        ...

    def fetch_delta(
        self, old: Digest, new: Digest, *, size: int, sources: tuple[str, ...]
    ) -> Path | None:
        """The delta from `old` to `new`, a file of `size` bytes; None where there is none.

        A transfer that broke off goes on at the next call, as long as the store is not collected.

        Raises:
            DeviceError: NO_SPACE or STORAGE_FAILED.
            Canceled: the caller asked for an end.
        """
        ...
