"""What the agent needs from the world, one to five methods each, and the values that cross.

The shell performs what the install machine decided through these; adapters and the runtime
implement them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgefleet_contract.bundle import Digest, Limits, Variant
from edgefleet_contract.drift import Window
from edgefleet_contract.errors import TransientError
from edgefleet_contract.reasons import Reason

if TYPE_CHECKING:
    # For types only: every worker imports this file, and has no use for a crypto library.
    from edgefleet_contract.orders import Order
    from edgefleet_contract.phases import Phase


class Canceled(Exception):
    """The caller asked for an end to a transfer."""


class AllowanceSpent(TransientError):
    """A transfer used up the bytes that it may take from the site's uplink; the rest must wait."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A step that did not work: the reason crosses the wire, the detail is for people."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FileSeal:
    """How one sealed file is opened, in memory: `path` in `bundle`, and its key, 64 hex digits. It
    crosses to a child on its control channel, and to no disk.
    """

    bundle: Digest
    path: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a bundle in the store: where it lies, and the SHA-256 of what it holds; of sealed
    bytes, the SHA-256 of what comes out, and the seal.

    `path` is text, as it crosses to a child.
    """

    path: str
    sha256: Digest
    seal: FileSeal | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant of a bundle that this board is to run, on which runtime, and why this one."""

    variant: Variant
    engine: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A verified variant in the store, and all that is needed to run and to judge it.

    `slot` is the name under which it is served. `engine` is the runtime that was chosen. `files`
    are those of the content-addressed store (read-only; never written again), by their paths in the
    bundle: the variant's own, its golden vectors, and the labels; `labels` is the path of these, or
    empty. `limits` is the signed envelope for this board, if the publisher gave one.
    """

    slot: str
    model: str
    version: int
    bundle_sha256: Digest
    variant: Variant
    engine: str
    files: dict[str, StoredFile]
    labels: str = ""
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What the trial measured: load and first answer, ms; one inference, µs; peak memory, MiB.

    `accelerator` is what it ran on, `passed_over` says why not on what comes before that.
    `made_room`: for want of memory, what serves in its slot was away meanwhile. `open_ms` is the
    part of `load_ms` before the first inference; `runs` were timed, `disturbed` more left out.
    """

    vectors: int
    max_abs_err: float
    load_ms: float
    p50_us: float
    p95_us: float
    ram_mib: float
    accelerator: str = ""
    passed_over: tuple[str, ...] = ()
    made_room: bool = False
    open_ms: float = 0.0
    p99_us: float = 0.0
    runs: int = 0
    disturbed: int = 0


@dataclass(frozen=True, slots=True)
class SlotStats:
    """Counts of one slot since its present version began to serve; latencies of the last interval.

    `ready` says that a worker answers; `restarts` counts workers that died since activation;
    `made_room`, that the version before it left first, for want of memory. `accelerator` is what it
    runs on, `passed_over` says why not on what comes before that. `drift` is what was counted since
    the last new interval, where that is enough to be told.
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
    accelerator: str = ""
    passed_over: tuple[str, ...] = ()
    made_room: bool = False
    drift: Window | None = None


@dataclass(frozen=True, slots=True)
class BoardState:
    """How the board is doing; None where it cannot tell. `cpu_ratio` is from 0 to 1."""

    on_mains: bool | None = None
    metered: bool | None = None
    celsius: float | None = None
    cpu_ratio: float = 0.0


class Surroundings(Protocol):
    """What an install may have to wait for."""

    def now(self) -> BoardState:
        """How the board is doing."""
        ...

    @property
    def is_linked(self) -> bool:
        """Whether the broker is reached now."""
        ...


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What a candidate did with copies of live requests, beside the version that serves.

    `requests` copies were answered by the candidate, `errors` of them not with a prediction (the
    serving version's was one). `judged` of the rest have outputs that look like class scores (last
    axis longer than 1) or text; `agreements` of those say the same: the same largest score in every
    row, the same text. Differences are over all numbers of all outputs that compare by shape.
    Latencies, µs: of the serving version as its clients wait for it; of the candidate, decoding to
    encoded answer, at the lowest priority. `cpu_s` is what the candidate took of the processors
    since it was loaded.
    `served` requests were answered by the slot in these `seconds`, copied or not. `enough` says
    that the caller's least number of copies was reached. Inputs and outputs are not in it.
    """

    requests: int = 0
    errors: int = 0
    judged: int = 0
    agreements: int = 0
    max_abs_diff: float = 0.0
    mean_abs_diff: float = 0.0
    serving_p50_us: int = 0
    serving_p95_us: int = 0
    candidate_p50_us: int = 0
    candidate_p95_us: int = 0
    cpu_s: float = 0.0
    served: int = 0
    seconds: float = 0.0
    enough: bool = False

    @property
    def agreement(self) -> float | None:
        """The share of judged copies in which both agreed; None where none could be judged."""
        return self.agreements / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """How a candidate answered its share of the live requests, beside the version that serves.

    `requests` is what it was asked by chance, `failures` how many of them it failed: errors,
    deadlines, refusals. The serving version answered these; what both fail counts with that one
    alone. Requests that named the candidate are not in it. `serving_requests` and
    `serving_failures` are of the serving version in the same `seconds`, as are the latencies, µs:
    of each version from when it was asked. `enough` says that the caller's least number of requests
    was reached.
    """

    requests: int = 0
    failures: int = 0
    serving_requests: int = 0
    serving_failures: int = 0
    serving_p50_us: int = 0
    serving_p95_us: int = 0
    candidate_p50_us: int = 0
    candidate_p95_us: int = 0
    share: float = 0.0
    seconds: float = 0.0
    enough: bool = False


class ModelHost(Protocol):
    """Runs models: trials, the swap, the workers. One owner, on one event loop."""

    async def trial(self, spec: ModelSpec, *, timeout_s: float) -> TrialReport | Failed:
        """Load the model in a process of its own and hold it against its golden vectors."""
        ...

    async def shadow(
        self,
        spec: ModelSpec,
        *,
        seconds: float,
        share: float,
        min_requests: int,
        max_cpu_share: float,
    ) -> ShadowReport | Failed:
        """Let a candidate answer copies of what its slot is asked, and compare; none is served.

        Args:
            spec: the candidate; what serves in its slot now is what it is held against.
            seconds: how long, counted from when it is loaded.
            share: of the requests, chosen at random, that may be copied.
            min_requests: how many copies make the report `enough`.
            max_cpu_share: of one core, that the candidate may take; one inference is never cut.

        Returns:
            The report; `requests` is 0 where nobody asked, where nothing serves in the slot (it
            returns at once), and where the board had no time to spare. `Failed` where the
            candidate does not load, dies (TRIAL_CRASHED) or hangs (TRIAL_TIMEOUT).
        """
        ...

    async def canary(
        self,
        spec: ModelSpec,
        *,
        seconds: float,
        share: float,
        min_requests: int,
        max_failures: int,
    ) -> CanaryReport | Failed:
        """Let a candidate answer a share of what its slot is asked, beside what serves there.

        It loses no request: what the candidate fails, the serving version answers. Nothing of it is
        left when this returns.

        Args:
            spec: the candidate.
            seconds: how long, counted from when it is routed.
            share: of the requests that name no version, chosen at random, that go to it.
            min_requests: how many make the report `enough`.
            max_failures: more than that end it early.

        Returns:
            The report; `requests` is 0 where nobody asked, and where nothing serves in the slot or
            there is no memory for both (it returns at once). `Failed` where the candidate does not
            load, or dies (CANARY_FAILED).
        """
        ...

    async def activate(self, specs: tuple[ModelSpec, ...]) -> Failed | None:
        """Make these serve, all or none, without a lost request; what served before drains."""
        ...

    async def deactivate(self, slot: str) -> None:
        """Stop serving a slot; unknown slots are no error."""
        ...

    def on_crash_loop(self, tell: Callable[[ModelSpec, str], None]) -> None:
        """Have `tell` called, once, when what serves keeps dying, with how it ended the last time.

        It is started again all the same, until something else is activated in its slot.
        """
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


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes that came, by each transport; `uplink` is what the site's uplink carried of them.

    `deltas` is how many of them were of deltas, used or not; `saved` how many fewer that were than
    the files that were made of them.
    """

    ways: dict[str, int]
    uplink: int
    deltas: int = 0
    saved: int = 0


class Fetcher(Protocol):
    """Brings blobs into the store by digest; what it returns has that digest."""

    def cancel(self) -> None:
        """Make the transfer at hand, in another thread, raise `Canceled` soon."""
        ...

    def resume(self) -> None:
        """Allow transfers again."""
        ...

    def allow(self, max_bytes: int | None, *, max_bytes_per_s: int = 0) -> None:
        """From now on so many bytes may come over the uplink, then `AllowanceSpent`; None: any.

        `max_bytes_per_s` caps it below what the configuration does; 0: it does not.
        """
        ...

    def take_moved(self) -> Moved:
        """The bytes that came since this was asked last."""
        ...

    def fetch(
        self, digest: Digest, *, max_bytes: int, sources: tuple[str, ...], what: str
    ) -> bytes:
        """A small document, whole, not stored.

        Raises:
            TransientError: no source could be reached; try later (AllowanceSpent: much later).
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
        """The delta from `old` to `new`, a file of `size` bytes; None where none is to be had.

        Nobody vouches for it. One that broke off goes on at the next call.

        Raises:
            Canceled: the caller asked for an end.
        """
        ...
