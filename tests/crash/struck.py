"""The ports of a device that is struck: each asks the stage whether it is to meet something."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from typing import Any

from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.device import Device
from edgefleet_agent.ports import (
    BoardState,
    CanaryReport,
    Failed,
    ModelSpec,
    ShadowReport,
    SlotStats,
    TrialReport,
)
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import TransientError
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import Weather
from tests.crash.board import Heard, MemoryHost
from tests.crash.moments import What
from tests.crash.region import BASE, NEW
from tests.crash.strikes import Place, Stage


def journal_of(stage: Stage) -> type[Journal]:
    """A journal that says what it does."""

    class Told(Journal):
        def load(self) -> Device:
            stage.device = super().load()
            return stage.device

        def save(self, device: Device) -> None:
            self._told(device, times=1)

        def save_twice(self, device: Device) -> None:
            self._told(device, times=2)

        def _told(self, device: Device, *, times: int) -> None:
            stage.strike(Place.AGAIN)
            if stage.is_there(device):
                stage.strike(Place.BEFORE)
            stage.note(What.SAVING, device)
            for _ in range(times):
                self.write(device)
            stage.device = device
            stage.note(What.SAVED)
            if stage.is_there(device):
                stage.strike(Place.AFTER)
                if device.pending is not None:
                    stage.strike(Place.PENDING)

        def write(self, device: Device) -> None:
            super().save(device)

    class Hasty(Told):
        """A mutant: it says that it has written, and writes at the next call."""

        _behind: Device | None = None

        def write(self, device: Device) -> None:
            if self._behind is not None:
                super().write(self._behind)
            self._behind = device

    return Hasty if stage.script.mutant == "hasty journal" else Told


def store_of(stage: Stage) -> type[Store]:
    """A store whose long works may meet something."""

    class Struck(Store):
        def check(self, digest: Digest) -> None:
            if stage.meets(is_mine=stage.script.state is Phase.VERIFIED):
                self.path(digest).unlink(missing_ok=True)  # it rots
            super().check(digest)

        def collect(self, keep: Iterable[Digest]) -> int:
            if stage.meets(is_mine=stage.device.phase.is_final):
                raise OSError(errno.EIO, "Input/output error")
            return super().collect(keep)

    return Struck


def mover_of(stage: Stage) -> type[Mover]:
    """A mover that may meet something at the first chunk of a file."""

    class Struck(Mover):
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
            def met(done: int) -> None:
                if stage.meets():
                    raise TransientError(f"{what}: the connection was reset")
                progress(done)

            return super().fetch_file(
                digest,
                size=size,
                chunk_list_sha256=chunk_list_sha256,
                sources=sources,
                what=what,
                progress=met,
            )

    return Struck


class StruckHost(MemoryHost):
    """A runtime that may meet something, and whose models may be bad."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage, self._bad = stage, stage.script.bad

    async def trial(self, spec: ModelSpec, *, timeout_s: float) -> TrialReport | Failed:
        if self._stage.meets():
            return Failed(Reason.TRIAL_CRASHED, "exit code 139")
        if "trial" in self._bad and spec.version == NEW:
            return Failed(Reason.GOLDEN_MISMATCH, "3 of 3 differ")
        return await super().trial(spec, timeout_s=timeout_s)

    async def shadow(self, spec: ModelSpec, **asked: Any) -> ShadowReport | Failed:
        if self._stage.meets():
            return Failed(Reason.TRIAL_CRASHED, "exit code 139")
        return await super().shadow(spec, **asked)

    async def canary(self, spec: ModelSpec, **asked: Any) -> CanaryReport | Failed:
        if self._stage.meets():
            return Failed(Reason.CANARY_FAILED, "its worker died")
        return await super().canary(spec, **asked)

    async def activate(self, specs: tuple[ModelSpec, ...]) -> Failed | None:
        phase, versions = self._stage.device.phase, {spec.version for spec in specs}
        is_candidate = versions == _coming(self._stage.device)
        is_mine = phase is Phase.ROLLING_BACK or (phase is Phase.ACTIVATING and is_candidate)
        if self._stage.meets(is_mine=is_mine):
            return Failed(Reason.ACTIVATION_FAILED, "it does not answer")
        if "base" in self._bad and phase is Phase.ROLLING_BACK and versions == {BASE}:
            return Failed(Reason.ACTIVATION_FAILED, "it does not answer any more")
        failed = await super().activate(specs)
        self._stage.note(What.SERVES)
        return failed

    async def deactivate(self, slot: str) -> None:
        self._stage.meets(is_mine=self._stage.device.phase is Phase.ROLLING_BACK)
        await super().deactivate(slot)
        self._stage.note(What.SERVES)

    def stats(self, *, new_interval: bool = False) -> tuple[SlotStats, ...]:
        found = super().stats(new_interval=new_interval)
        is_dead = "probation" in self._bad and NEW in {item.version for item in found}
        return () if self._stage.meets() or is_dead else found


def _coming(device: Device) -> set[int]:
    return {item.target.version for item in device.install.chosen} if device.install else set()


class StruckWeather(Weather):
    """Surroundings that may meet something."""

    stage: Stage

    def now(self) -> BoardState:
        if self.stage.meets(is_mine=self.stage.script.state is Phase.WAIT_WINDOW):
            raise OSError(errno.ENODEV, "the sensor is gone")
        return self.state


class Told(Heard):
    """A reporter whose words are written down."""

    stage: Stage

    def step(
        self,
        order: Order | None,
        phase: Phase,
        reason: Reason | None,
        detail: str,
        measurements: dict[str, float],
    ) -> None:
        super().step(order, phase, reason, detail, measurements)
        number = order.seq if order else 0
        self.stage.note(What.TOLD, order=number, reason=reason or "", detail=phase)


class Noting(asyncio.Queue[Any]):
    """A queue that knows whether somebody waits for it in vain."""

    heard: Heard
    is_waited_for = False

    async def get(self) -> Any:
        self.is_waited_for = self.empty()
        self.heard.changed.set()
        item = await super().get()
        self.is_waited_for = False
        return item
