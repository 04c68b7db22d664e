"""Makes the processes that run models: what all of them need is said here, once.

A version that is to serve gets a worker, a candidate a trial, a shadow or a canary; each with the
threads, accelerators and bounds of its slot, as a fork where that works, in a control group where
there are such. What a trial measured is remembered, since it says whether the next one fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime.cgroups import Cgroups
from edgefleet_agent.runtime.chain import Accelerators, platform
from edgefleet_agent.runtime.measuring import least_bound
from edgefleet_agent.runtime.memory import available_bytes
from edgefleet_agent.runtime.room import Appetite, SwapMode, choose_mode, worker_bound
from edgefleet_agent.runtime.shadow_process import ShadowProcess
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_agent.runtime.worker_process import WorkerProcess
from edgefleet_agent.runtime.zygote_process import ZygoteProcess
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.counts import Counts
from edgefleet_agent.serving.route import Route
from edgefleet_contract.bundle import Digest

_LEAST_MIB: Final = 64


@dataclass(slots=True, eq=False)
class Served:
    """A slot that serves: its worker, and what was counted since it began."""

    spec: ModelSpec
    worker: WorkerProcess
    counts: Counts = field(default_factory=Counts)
    interval: Counts = field(default_factory=Counts)
    made_room: bool = False

    def route(self) -> Route:
        """Where the front finds it."""
        spec = self.spec
        return Route(
            slot=spec.slot,
            model=spec.model,
            version=spec.version,
            worker=self.worker.id,
            path=str(self.worker.path),
            inputs=spec.variant.public_inputs,
            outputs=spec.variant.public_outputs,
            platform=platform(spec.engine, spec.variant.format, self.worker.accelerator),
            is_coming=self.worker.pid is None,
            is_stateful=spec.variant.is_stateful,
        )


class Workshop:
    """Makes processes, all below one folder of sockets that the host sets.

    Args:
        config: of serving.
        zygote: whether they are forks, where that works.
        engines: the runtimes that forks have at hand; empty: all that are installed.
        accelerators: what models may run on; None: the runtimes as they come.
        groups: where they get control groups of their own.
        available: bytes of memory that can be had now.
    """

    def __init__(
        self,
        config: ServingConfig,
        *,
        zygote: bool = True,
        engines: Iterable[str] = (),
        accelerators: Accelerators | None = None,
        groups: Cgroups | None = None,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._config, self._groups, self._available = config, groups, available
        self._accelerators = accelerators or Accelerators()
        self._proven: dict[str, tuple[ModelSpec, str]] = {}  # the last trial of each slot
        self._measured_mib: dict[Digest, float] = {}
        self._made = 0
        self.zygote = ZygoteProcess(engines, threads=config.threads) if zygote else None
        self.folder: Path | None = None
        self.tell_drift: Callable[[str], None] = lambda _worker: None
        self.tell_loop: Callable[[ModelSpec, str], None] = lambda _spec, _words: None

    def serve(self, spec: ModelSpec) -> Served:
        """A version with a worker, which is not started yet."""
        config = self._config.model(spec.slot)
        worker = WorkerProcess(
            self._name("w"),
            spec,
            folder=self._place(),
            serving=config,
            ready_s=self._config.ready_s,
            accelerators=self._accelerators_for(spec),
            zygote=self.zygote,
            groups=self._groups,
            memory_bytes=worker_bound(spec.limits.ram_mib if spec.limits else 0, config.memory_mib),
            on_drift=lambda worker: self.tell_drift(worker),
            on_loop=lambda spec, words: self.tell_loop(spec, words),
        )
        return Served(spec, worker)

    def serve_again(self, served: Served) -> Served:
        """The same version with another worker, and the counts that it has."""
        return replace(served, worker=self.serve(served.spec).worker)

    def shadow(self, spec: ModelSpec) -> ShadowProcess:
        """A candidate that will run in shadow."""
        return ShadowProcess(
            self._name("s"),
            spec,
            config=self._config,
            folder=self._place(),
            accelerators=self._accelerators_for(spec),
            zygote=self.zygote,
            groups=self._groups,
        )

    async def trial(self, spec: ModelSpec, *, timeout_s: float) -> TrialReport | Failed:
        """See `ModelHost.trial`; nothing makes room for it."""
        outcome = await try_model(
            spec,
            timeout_s=timeout_s,
            threads=self._config.model(spec.slot).threads,
            data_mib=self._config.trial_data_mib,
            accelerators=self._accelerators_for(spec),
            zygote=self.zygote,
            groups=self._groups,
        )
        if isinstance(outcome, TrialReport):
            self._proven[spec.slot] = spec, outcome.accelerator
            self._measured_mib[_model(spec)] = outcome.ram_mib
        return outcome

    async def measure(
        self, spec: ModelSpec, *, timeout_s: float, memory_mib: int, timing: tuple[int, float]
    ) -> TrialReport | Failed:
        """A trial of what is no candidate of a slot: it may have what is free, and no more."""
        measure = self._config.measure
        free = max(_LEAST_MIB, self._available() * 3 // 4 // 2**20)
        return await try_model(
            spec,
            timeout_s=timeout_s,
            threads=self._config.threads,
            data_mib=least_bound(
                memory_mib, self._config.trial_data_mib, measure.memory_mib or free
            ),
            accelerators=self._accelerators,
            zygote=self.zygote,
            groups=self._groups,
            timing=timing,
        )

    def fits(self, specs: Sequence[ModelSpec]) -> bool:
        """Whether these can be loaded beside all that is."""
        appetites = tuple(
            Appetite(
                file_bytes=sum(_size(spec.files[path].path) for path in spec.variant.files),
                limit_mib=spec.limits.ram_mib if spec.limits else 0,
                measured_mib=self._measured_mib.get(_model(spec), 0),
            )
            for spec in specs
        )
        mode = choose_mode(appetites, self._available())
        return mode is SwapMode.AVAILABILITY_PRESERVING

    def _accelerators_for(self, spec: ModelSpec) -> Accelerators:
        tried, proven = self._proven.get(spec.slot, (None, ""))
        return replace(
            self._accelerators,
            named=self._config.model(spec.slot).accelerators or self._accelerators.named,
            proven=proven if tried == spec else "",
        )

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}{self._made}"

    def _place(self) -> Path:
        assert self.folder is not None, "the host is not started"
        return self.folder


def _model(spec: ModelSpec) -> Digest:
    return spec.files[spec.variant.model].sha256


def _size(path: str) -> int:
    place = Path(path)
    return place.stat().st_size if place.exists() else 0
