"""A crowd of scripted devices in one process: each with its certificate and its own connection.

They do what devices do, and at once: say who they are, follow an order through every step of an
install, send telemetry. Nothing of the agent runs; what is measured is the other end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import gmqtt

from edgefleet_contract.messages import Message, open_order, render
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reported import Presence, Reported, RunningModel
from edgefleet_contract.topics import Channel, topic
from tests.fleet.device import (
    PI5,
    Identity,
    enrol,
    event_of,
    model_sample,
    reported_of,
    running,
    system_sample,
)
from tests.fleet.stage import FLEET

STEPS: Final = (
    Phase.ACCEPTED,
    Phase.DOWNLOADING,
    Phase.VERIFIED,
    Phase.SELFTEST,
    Phase.PROBATION,
    Phase.COMMITTED,
)
_AT_ONCE: Final = 50  # connections that are being made


class Scripted:
    """One device; `said` counts what the broker acknowledged."""

    def __init__(self, identity: Identity) -> None:
        self.identity, self.name = identity, identity.name
        self.order: Order | None = None
        self.said = 0
        self._seq = 0
        self._models: tuple[RunningModel, ...] = ()
        self._work: set[asyncio.Task[None]] = set()
        self._client = gmqtt.Client(self.name)
        self._client.on_message = self._take
        self._answered: dict[int, asyncio.Event] = {}

    async def connect(self) -> None:
        """Connect, ask for orders, and say who is there and what it runs."""
        folder, there = self.identity.folder, self.identity
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "device.crt", folder / "device.key")
        await self._client.connect(there.host, there.port, ssl=context, keepalive=300)
        self._client.subscribe(topic(FLEET, self.name, Channel.DESIRED), qos=1)
        self.say(Channel.ONLINE, Presence(self.name, "boot", True, "0.1.0", 1), retain=True)
        idle = Reported(*(self.name, "boot", 1_800_000_000, "0.1.0", 0, "", Phase.IDLE, (), PI5))
        self.say(Channel.REPORTED, idle, retain=True)

    def measured(self, ts: int) -> None:
        """Send what a device measures in an interval."""
        self.say(Channel.TELEMETRY_SYSTEM, system_sample(self.name, ts=ts))
        self.say(Channel.TELEMETRY_MODEL, model_sample(self.name, ts=ts))

    def say(self, channel: Channel, message: Message, *, retain: bool = False) -> None:
        """Publish, QoS 1."""
        where = topic(FLEET, self.name, channel)
        self._client.publish(where, render(message), qos=1, retain=retain)
        self.said += 1

    async def leave(self) -> None:
        """Hang up."""
        await self._client.disconnect()

    async def _take(self, _client: Any, _topic: str, payload: bytes, *_: object) -> int:
        order = open_order(bytes(payload), self.identity.trust.director_ring)
        if self.order is None or order.seq > self.order.seq:
            self.order = order
            self._models = tuple(running(target) for target in order.targets)
            for phase in STEPS:
                self._seq += 1
                self.say(Channel.EVENT, event_of(self.name, order, phase, seq=self._seq))
            self.say(
                Channel.REPORTED,
                reported_of(self.name, order, Phase.COMMITTED, self._models),
                retain=True,
            )
        return 0


def enrolled(url: str, claim: str, count: int, folder: Path) -> list[Scripted]:
    """So many devices, enrolled as devices are."""
    names = [f"pi-{number:05}" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda name: enrol(url, claim, name, folder / name), names)
        return [Scripted(identity) for identity in made]


async def each(devices: Iterable[Scripted], do: Callable[[Scripted], Awaitable[None]]) -> None:
    """Do it with every device, some at a time."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(device: Scripted) -> None:
        async with room:
            await do(device)

    async with asyncio.TaskGroup() as tasks:
        for device in devices:
            tasks.create_task(one(device))
