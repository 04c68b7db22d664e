"""A whole device but its link, in a folder: it boots, takes orders, and loses its power."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.adapters.tuf_client import TufClient
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.identity import Enrolment, Identity
from edgefleet_agent.installer import Installer
from edgefleet_agent.keeper import TrustKeeper
from edgefleet_agent.ports import BoardState, Choice
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.runtime.memory import available_bytes
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.transfer.mover import Mover
from edgefleet_agent.unsealing import Unsealer, no_key
from edgefleet_contract import messages
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.bundles import PUBLISHER
from tests.agent.models import pixels
from tests.agent.repository import Repository

DIRECTOR = PrivateKey.generate_ed25519()


@dataclass
class Recorder:
    """What the fleet would hear."""

    steps: list[tuple[Phase, Reason | None, str]] = field(default_factory=list)
    measurements: dict[str, float] = field(default_factory=dict)
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
        self.measurements |= measurements
        self.changed.set()

    def state(self) -> None:
        self.changed.set()

    def phases(self) -> list[Phase]:
        """The phases passed, each once in a row; progress does not count."""
        found: list[Phase] = []
        for phase, _, _ in self.steps:
            if not found or found[-1] is not phase:
                found.append(phase)
        return found


@dataclass
class Weather:
    """What an install may have to wait for, as a test sets it."""

    state: BoardState = field(default_factory=BoardState)
    is_linked: bool = True

    def now(self) -> BoardState:
        return self.state


class Board:
    """A device in a folder; `boot` starts it, leaving the block cuts its power."""

    def __init__(
        self,
        folder: Path,
        repository: Repository | None = None,
        unseal: Unsealer = no_key,
        *,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self.folder, self.unseal, self.available = folder, unseal, available
        self.repository = repository or Repository(DIRECTOR, PUBLISHER)
        self.heard = Recorder()
        self.surroundings = Weather()
        self.host: LocalHost
        self.installer: Installer

    async def __aenter__(self) -> Board:
        store = Store(self.folder / "store")
        self.heard = Recorder()
        config = ServingConfig(listen=("127.0.0.1:0",))
        self.host = LocalHost(config, available=self.available)
        await self.host.start()
        root = self.repository.root
        self.keeper = TrustKeeper(
            TufClient(self.folder / "trust", root),
            self.folder,
            url="",
            floors=lambda: self.installer.device.trust,
            time_floor=lambda: self.installer.device.time_floor,
            clock=lambda: self.now,
        )
        self.keeper.broker = self.repository  # type: ignore[assignment] # a source like any other
        self.installer = Installer(
            identity=Identity(Enrolment("demo", "pi-1", "x", 1), root, *[Path("/x")] * 3),
            journal=Journal(self.folder),
            keeper=self.keeper,
            bundles=Bundles(
                store=store,
                fetcher=Mover(store, [HttpChunks()]),
                publishers=lambda: self.keeper.publishers,
                choose=lambda manifest: Choice(
                    manifest.variants[0], *manifest.variants[0].runtimes
                ),
                hw="x86-64",
                unseal=self.unseal,
            ),
            host=self.host,
            reporter=self.heard,
            surroundings=self.surroundings,
            look_s=0.05,
            trial_timeout_s=60,
            clock=lambda: self.now,
        )
        started = asyncio.Event()
        self.task = asyncio.create_task(self.installer.run(started))
        await asyncio.wait_for(started.wait(), 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.host.close()

    @property
    def now(self) -> float:
        return self.repository.now.timestamp()

    def take(self, order: Order, *, released: bool = True) -> None:
        if released:
            self.repository.release(*order.targets)
        self.installer.order_arrived(messages.seal_order(order, DIRECTOR))

    async def until(self, *phases: Phase) -> None:
        async with asyncio.timeout(60):
            while not (self.installer.device.phase in phases and self.heard.steps):
                self.heard.changed.clear()
                await self.heard.changed.wait()

    async def install(self, order: Order) -> Phase:
        self.take(order)
        async with asyncio.timeout(60):
            while not (self.at_hand >= order.seq and self.installer.device.phase.is_final):
                self.heard.changed.clear()
                await self.heard.changed.wait()
        return self.installer.device.phase

    @property
    def at_hand(self) -> int:
        """The number of the order that is being carried out, or was last."""
        install = self.installer.device.install
        return install.order.seq if install else 0

    def answer(self, slot: str = "digits") -> tuple[int, object]:
        return self.ask({"instances": pixels(1).tolist()}, slot)

    def ask(self, body: object, slot: str = "digits") -> tuple[int, object]:
        host, _, port = self.host.addresses[0].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("POST", f"/v1/models/{slot}:predict", json.dumps(body))
        response = connection.getresponse()
        value = json.loads(response.read())
        connection.close()
        return response.status, value.get("predictions", value)
