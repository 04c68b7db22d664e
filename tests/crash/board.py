"""A device for crash tests: the real agent over a file-system layer of one's choice.

All that is stood in for is the runtime (`MemoryHost`: it reads, hashes and "serves" what it is
given), so that thousands of starts are affordable; a sample of the same tests has the real one. The
director's orders come again at each start, as a broker's retained messages do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.adapters.tuf_client import FolderMetadata, MetadataSource, TufClient
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.identity import Enrolment, Identity
from edgefleet_agent.installer import Installer
from edgefleet_agent.keeper import TrustKeeper
from edgefleet_agent.ports import (
    CanaryReport,
    Failed,
    ModelSpec,
    ShadowReport,
    SlotStats,
    TrialReport,
)
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract import messages
from edgefleet_contract.bundle import sha256
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import Weather
from tests.agent.bundles import first_choice, make_bundle
from tests.agent.repository import Repository
from tests.agent.shelf import Shelf
from tests.contract.makers import order_of, target_of, write_bundle

PATIENCE_S = 20.0
CHUNKS = 65_536 * 2 + 1_000
"""The size of every model but the first: three chunks."""


class MemoryHost:
    """A `ModelHost` that holds files against their digests, as the real one does, and runs none."""

    def __init__(self) -> None:
        self.serving: dict[str, ModelSpec] = {}
        self.tell: Callable[[ModelSpec, str], None]

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to stop."""

    async def trial(self, spec: ModelSpec, *, timeout_s: float) -> TrialReport | Failed:
        """See `ModelHost.trial`."""
        return _look(spec) or TrialReport(1, 0.0, 1.0, 1.0, 1.0, 1.0)

    async def shadow(
        self,
        spec: ModelSpec,
        *,
        seconds: float,
        share: float,
        min_requests: int,
        max_cpu_share: float,
    ) -> ShadowReport | Failed:
        """See `ModelHost.shadow`: nobody asks anything here."""
        return _look(spec) or ShadowReport(seconds=seconds, enough=not min_requests)

    async def canary(
        self,
        spec: ModelSpec,
        *,
        seconds: float,
        share: float,
        min_requests: int,
        max_failures: int,
    ) -> CanaryReport | Failed:
        """See `ModelHost.canary`: nobody asks anything here."""
        return _look(spec) or CanaryReport(share=share, seconds=seconds, enough=not min_requests)

    async def activate(self, specs: tuple[ModelSpec, ...]) -> Failed | None:
        """See `ModelHost.activate`."""
        for spec in specs:
            failed = _look(spec)
            if failed is not None:
                return failed
        self.serving |= {spec.slot: spec for spec in specs}
        return None

    async def deactivate(self, slot: str) -> None:
        """See `ModelHost.deactivate`."""
        self.serving.pop(slot, None)

    def on_crash_loop(self, tell: Callable[[ModelSpec, str], None]) -> None:
        """See `ModelHost.on_crash_loop`."""
        self.tell = tell

    def stats(self, *, new_interval: bool = False) -> tuple[SlotStats, ...]:
        """See `ModelHost.stats`."""
        return tuple(
            SlotStats(s.slot, s.model, s.version, "v", "onnxruntime", True, 0, 0, 0, 0, 0, 0, 0)
            for s in self.serving.values()
        )


def _look(spec: ModelSpec) -> Failed | None:
    try:
        found = {path: Path(file.path).read_bytes() for path, file in spec.files.items()}
    except OSError as error:
        return Failed(Reason.STORAGE_FAILED, str(error.strerror))
    if any(sha256(raw) != spec.files[path].sha256 for path, raw in found.items()):
        return Failed(Reason.DIGEST_MISMATCH, "not what was signed")
    return None


Host: TypeAlias = MemoryHost | LocalHost


@dataclass
class Heard:
    """What the fleet would hear."""

    steps: list[tuple[Phase, Reason | None, str]] = field(default_factory=list)
    is_settled: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def step(
        self,
        order: Order | None,
        phase: Phase,
        reason: Reason | None,
        detail: str,
        measurements: dict[str, float],
    ) -> None:
        self.steps.append((phase, reason, detail))
        self.is_settled = False
        self.changed.set()

    def state(self) -> None:
        self.is_settled = True
        self.changed.set()


@dataclass(frozen=True, slots=True)
class Site:
    """What is around a device: publishers, director; versions of one model."""

    source: MetadataSource
    root: bytes
    now: float
    orders: tuple[bytes, ...]


def make_site(shelf: Shelf, folder: Path, *, is_real: bool = False, versions: int = 2) -> Site:
    """A site whose order n brings version n; the last order says the last version again.

    `is_real`: of models that a runtime can run.
    """
    director, publisher = PrivateKey.generate_ed25519(), PrivateKey.generate_p256()
    repository = Repository(director, publisher)
    targets = []
    for version in range(1, versions + 1):
        if is_real:
            made = make_bundle(folder, version, key=publisher)
        else:
            content = random.Random(version).randbytes(1_000 if version == 1 else CHUNKS)
            made = write_bundle(folder, publisher, version=version, content=content)
        shelf.put_bundle(made)
        targets.append(target_of(made))
    repository.release(*targets)
    for name, raw in repository.documents.items():
        path = folder / "metadata" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    orders = (
        order_of(target, seq=seq, sources=(shelf.url,))
        for seq, target in enumerate((*targets, targets[-1]), 1)
    )
    return Site(
        FolderMetadata(folder / "metadata"),
        repository.root,
        repository.now.timestamp(),
        tuple(messages.seal_order(order, director) for order in orders),
    )


class Board:
    """One life of a device, from its start to its end: `async with Board(…) as board`."""

    def __init__(
        self,
        folder: Path,
        site: Site,
        fs: FileSystem | None = None,
        *,
        host: Host | None = None,
        journal: type[Journal] = Journal,
        store: type[Store] = Store,
        mover: type[Mover] = Mover,
    ) -> None:
        self.folder, self.site = folder, site
        self.now = site.now
        self.fs = fs or FileSystem()
        self.heard = Heard()
        self.weather = Weather()
        self.host: Host = host or MemoryHost()
        self._journal, self._store, self._mover = journal, store, mover
        self._failed: BaseException | None = None

    def build(self) -> None:
        """Put the agent together; it does nothing yet."""
        folder, site, fs = self.folder, self.site, self.fs
        store = self._store(folder / "store", fs)
        self.keeper = keeper = TrustKeeper(
            TufClient(folder / "trust", site.root, fs),
            folder,
            url="",
            floors=lambda: self.installer.device.trust,
            time_floor=lambda: self.installer.device.time_floor,
            clock=lambda: self.now,
        )
        keeper.broker = site.source  # type: ignore[assignment] # a source like any other
        self.bundles = Bundles(
            store=store,
            fetcher=self._mover(store, [HttpChunks()]),
            publishers=lambda: keeper.publishers,
            choose=first_choice,
            hw="x86-64",
        )
        self.installer = Installer(
            identity=Identity(Enrolment("demo", "pi-1", "x", 1), site.root, *[Path("/x")] * 3),
            journal=self._journal(folder, fs),
            keeper=keeper,
            bundles=self.bundles,
            host=self.host,
            reporter=self.heard,
            surroundings=self.weather,
            look_s=0.01,
            trial_timeout_s=60,
            clock=lambda: self.now,
            disk_retry_s=(0.002, 0.01),
        )

    async def __aenter__(self) -> Self:
        await self.host.start()
        self.build()
        started = asyncio.Event()
        self.task = asyncio.create_task(self.installer.run(started))
        self.task.add_done_callback(self._ended)
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({waiting, self.task}, timeout=PATIENCE_S, return_when="FIRST_COMPLETED")
        waiting.cancel()
        self.check()
        assert started.is_set(), "it did not start"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.host.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._failed = task.exception()
        self.heard.changed.set()

    def check(self) -> None:
        """Raise what the agent died of, if it did."""
        if self._failed is not None:
            raise self._failed

    def take(self, number: int) -> None:
        """The order with this number arrives."""
        self.installer.order_arrived(self.site.orders[number - 1])

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Return once the condition holds; fail when the agent dies, or after `PATIENCE_S`."""
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            self.check()
            self.heard.changed.clear()
            left = end - time.monotonic()
            assert left > 0, f"it did not come to pass: {self.heard.steps}"
            try:
                await asyncio.wait_for(self.heard.changed.wait(), left)
            except TimeoutError:
                continue
        self.check()

    def is_over(self, number: int) -> bool:
        """Whether an order was followed to its end, and cleaned up after."""
        device = self.installer.device
        return device.seq >= number and device.phase.is_final and self.heard.is_settled

    async def follow(self, number: int) -> Phase:
        """Follow an order to its end."""
        self.take(number)
        await self.until(lambda: self.is_over(number))
        return self.installer.device.phase

    @property
    def version(self) -> int | None:
        """The version that serves."""
        return next((model.version for model in self.installer.running), None)


def servable(folder: Path) -> int | None:
    """The version that a start would serve, judged by the files alone; None where there is none."""
    device = Journal(folder).load()
    item = device.slots.get("digits")
    return item.target.version if item else None


def left_over(folder: Path) -> list[str]:
    """What is on the disk and ought not to be, once an install is over."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [
        str(path.relative_to(folder))
        for path in files
        if path.suffix in (".part", ".new", ".corrupt")
        or (path.parent.name == "blobs" and sha256(path.read_bytes()) != path.name)
    ]
