"""All sources of a device: their processes, what they find on its way out, and their counts."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefleet_agent.runtime.process import Forker
from edgefleet_agent.sources.config import IN_AGENT, SourceConfig
from edgefleet_agent.sources.options import MqttSinkOptions
from edgefleet_agent.sources.outbox import Outbox
from edgefleet_agent.sources.process import SourceProcess
from edgefleet_agent.sources.requests import Request
from edgefleet_agent.sources.responder import Responder
from edgefleet_contract import codec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed
from edgefleet_contract.telemetry import SourceTelemetry

if TYPE_CHECKING:
    from edgefleet_agent.adapters.mqtt_link import MqttLink

_log = logging.getLogger(__name__)

_SENDING_S: Final = 0.05
_OFFLINE_S: Final = 0.5


class Sources:
    """The sources of one device. Made on the event loop; `run` owns them until it is cancelled.

    Args:
        configs: which there are.
        fleet, device, boot_id: whose results they are.
        link: carries results and answers.
        addresses: where the agent serves; one is a Unix socket.
        base: where relative paths begin: the state folder.
        hidden: the folders with keys.
        zygote: forks their processes where that works.
    """

    def __init__(
        self,
        configs: tuple[SourceConfig, ...],
        *,
        fleet: str,
        device: str,
        boot_id: str,
        link: MqttLink,
        addresses: tuple[str, ...],
        base: Path,
        hidden: tuple[Path, ...],
        zygote: Forker | None,
    ) -> None:
        self._device, self._link = device, link
        self._processes: list[SourceProcess] = []
        self._outboxes: dict[str, Outbox] = {}
        self._responders: dict[str, Responder] = {}
        self._has_results = asyncio.Event()
        address = next((at for at in addresses if at.startswith("unix:")), "")
        for config in configs:
            if config.kind == IN_AGENT:
                self._responders[config.model] = Responder(
                    config,
                    path=address.removeprefix("unix:"),
                    fleet=fleet,
                    device=device,
                    line=link,
                )
                continue
            if config.sink is not None and config.sink.kind == "mqtt":
                options = codec.decode(MqttSinkOptions, dict(config.sink.options), what=config.name)
                self._outboxes[config.name] = Outbox(
                    device, boot_id, config.name, config.model, options
                )
            self._processes.append(
                SourceProcess(
                    config,
                    address=address,
                    base=base.absolute(),
                    hidden=hidden,
                    zygote=zygote,
                    on_result=partial(self._found, config.name),
                )
            )

    @property
    def pids(self) -> dict[str, int]:
        """The process of every source that has one."""
        return {
            process.config.name: process.pid
            for process in self._processes
            if process.pid is not None
        }

    async def run(self) -> None:
        """Keep all of them running."""
        async with asyncio.TaskGroup() as tasks:
            for process in self._processes:
                tasks.create_task(process.run())
            for responder in self._responders.values():
                tasks.create_task(responder.run())
            if self._outboxes:
                tasks.create_task(self._pump())

    def asked(self, request: Request) -> None:
        """A request came over the broker; of a slot that is not asked this way it is dropped."""
        if responder := self._responders.get(request.slot):
            responder.take(request)

    def telemetry(self, ts_ms: int) -> tuple[SourceTelemetry, ...]:
        """The counts of every source; `ts_ms` is ms since 1970."""
        found = []
        for process in self._processes:
            counts = process.counts
            if box := self._outboxes.get(process.config.name):
                counts += Counter(dropped=box.dropped, published=box.published)
            found.append(self._told(process.config, counts, process.restarts, ts_ms))
        asked = [
            self._told(responder.config, responder.counts, 0, ts_ms)
            for responder in self._responders.values()
        ]
        return (*found, *asked)

    def _told(
        self, config: SourceConfig, counts: Counter[str], restarts: int, ts_ms: int
    ) -> SourceTelemetry:
        return SourceTelemetry(
            device=self._device,
            ts=ts_ms,
            source=config.name,
            kind=config.kind,
            slot=config.model,
            read=counts["read"],
            predicted=counts["predicted"],
            dropped=counts["dropped"],
            failed=counts["failed"],
            published=counts["published"],
            restarts=restarts,
        )

    def _found(self, name: str, told: dict[str, Json]) -> None:
        box = self._outboxes.get(name)
        if box is None:
            raise ValueError(f"{name} has no sink for it")
        try:
            box.put(told)
            self._has_results.set()
        except Malformed as error:
            _log.warning("source %s: %s", name, error.message)
            next(each for each in self._processes if each.config.name == name).count("failed")

    async def _pump(self) -> None:
        while True:
            self._has_results.clear()
            for box in self._outboxes.values():
                box.pump(self._link)
            if all(box.is_empty for box in self._outboxes.values()):
                await self._has_results.wait()
            await asyncio.sleep(_SENDING_S if self._link.is_connected else _OFFLINE_S)
