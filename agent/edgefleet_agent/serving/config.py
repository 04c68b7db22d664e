"""How predictions are served: where to listen, and what is bounded by what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from edgefleet_agent.serving.lan import LanConfig
from edgefleet_contract.errors import OperatorError

DEFAULT_LISTENER: Final = "unix:serve.sock"
_SEQUENCES: Final = 64
_OWN_SESSIONS: Final = 8


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A `[serving.models.<slot>]` table: how one model is served.

    `threads` of one inference; 0: `serving.threads`. `accelerators` that it may run on, the
    preferred first; empty: `runtime.accelerators`. `memory_mib`: the most private memory that a
    worker of it may have; 0: as its signed limit allows, where there is one.
    `max_batch` requests are run together at most (1: none are), where the model allows it; one that
    had company waits `max_delay_ms` for more at most.
    `cache_mib` of answers are kept, for requests that are the same to the byte; 0: none.
    `max_sequences` of a stateful model are kept (0: 64, or 8 where each takes a session of its
    own), each for `sequence_idle_s` after its last request.
    `drift`: whether requests are counted in the bins of the bundle's drift reference.
    """

    threads: int = 0
    accelerators: tuple[str, ...] = ()
    memory_mib: int = 0
    max_batch: int = 1
    max_delay_ms: float = 0.0
    cache_mib: int = 0
    max_sequences: int = 0
    sequence_idle_s: float = 60.0
    drift: bool = True

    def __post_init__(self) -> None:
        lowest = {"max_batch": 1}
        for name in (
            *("threads", "memory_mib", "max_batch", "max_delay_ms", "cache_mib", "max_sequences"),
        ):
            found, least = getattr(self, name), lowest.get(name, 0)
            if found < least:
                raise OperatorError(f"{name} of a model is {found}", hint=f"{least} or more")
        if self.sequence_idle_s <= 0:
            raise OperatorError(
                f"sequence_idle_s of a model is {self.sequence_idle_s:g}", hint="above 0"
            )

    def sequences(self, *, own_session: bool) -> int:
        """How many sequences are kept, if each takes a session of its own or does not."""
        return self.max_sequences or (_OWN_SESSIONS if own_session else _SEQUENCES)


@dataclass(frozen=True, slots=True)
class MeasureConfig:
    """The `[serving.measure]` table: whether publishers may measure models on this board, by the
    network's door.

    `max_mib` bounds a job with its files, `max_s` how long one may take, `memory_mib` the private
    memory of what is measured (0: three quarters of what is free when it begins).
    """

    enabled: bool = False
    max_mib: int = 64
    max_s: float = 600.0
    memory_mib: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_mib", 1), ("max_s", 1), ("memory_mib", 0)):
            if getattr(self, name) < least:
                raise OperatorError(
                    f"serving.measure.{name} is {getattr(self, name)}", hint=f"{least} or more"
                )


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """The `[serving]` table.

    `listen`: `unix:/path` (mode 0660) or `host:port`; port 0 takes a free one. Whoever reaches one
    of these is answered, in the clear: beyond loopback that needs `open_to_network`, which is for a
    proxy on another machine that asks who comes. `lan` is the door for the network: TLS, and a
    token or a certificate. `grpc` is one more address, on this machine only, for the Open Inference
    Protocol by gRPC; empty: none. It needs the extra `edgefleet[grpc]`.
    `max_body_bytes` bounds a request, `request_s` how long it may take to arrive; `queue` how many
    wait per model; `deadline_s` how long one may take altogether; `drain_s` how long an old version
    may take to finish; `ready_s` how long a new one may take to load.
    `threads` of one inference; `models` has what is different for the slots that it names.
    `trial_data_mib` bounds the private memory of a trial (0: three
    quarters of what the board has). `run_dir` is for sockets between our own processes; empty: a
    fresh folder below the system's temporary one.
    """

    listen: tuple[str, ...] = (DEFAULT_LISTENER,)
    open_to_network: bool = False
    grpc: str = ""
    lan: LanConfig | None = None
    max_body_bytes: int = 16 * 1024 * 1024
    request_s: float = 30.0
    queue: int = 64
    deadline_s: float = 30.0
    drain_s: float = 10.0
    ready_s: float = 60.0
    threads: int = 1
    models: dict[str, ModelConfig] = field(default_factory=dict)
    trial_data_mib: int = 0
    run_dir: str = ""
    measure: MeasureConfig = MeasureConfig()

    def __post_init__(self) -> None:
        for name in (
            *("max_body_bytes", "request_s", "queue", "deadline_s", "drain_s", "ready_s"),
            "threads",
        ):
            if getattr(self, name) <= 0:
                raise OperatorError(
                    f"serving.{name} is {getattr(self, name)}", hint="it must be above 0"
                )
        if self.measure.enabled and (self.lan is None or not self.lan.tokens):
            raise OperatorError(
                "serving.measure is for the network, and serving.lan takes no tokens",
                hint="[serving.lan] with tokens; on the board itself: edge-agent measure",
            )
        if not self.listen:
            raise OperatorError(
                "serving.listen is empty", hint=f"for example [{DEFAULT_LISTENER!r}]"
            )

    def model(self, slot: str) -> ModelConfig:
        """How the model of a slot is served, with nothing left to a default elsewhere."""
        found = self.models.get(slot, ModelConfig())
        return replace(found, threads=found.threads or self.threads)
