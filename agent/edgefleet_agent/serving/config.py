"""How predictions are served: where to listen, and what is bounded by what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from edgefleet_contract.errors import OperatorError

DEFAULT_LISTENER: Final = "unix:serve.sock"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A `[serving.models.<slot>]` table: how one model is served.

    `threads` of one inference; 0: `serving.threads`. `accelerators` that it may run on, the
    preferred first; empty: `runtime.accelerators`.
    """

    threads: int = 0
    accelerators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise OperatorError(f"threads of a model is {self.threads}", hint="0 or more")


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """The `[serving]` table.

    `listen`: `unix:/path` (mode 0660) or `host:port`; port 0 takes a free one. `open_to_network`
    must be said to listen beyond loopback, since nobody is asked who they are.
    `max_body_bytes` bounds a request; `queue` how many wait per model; `deadline_s` how long one
    may take altogether; `drain_s` how long an old version may take to finish; `ready_s` how long a
    new one may take to load.
    `threads` of one inference; `models` has what is different for the slots that it names.
    `trial_data_mib` bounds the private memory of a trial (0: three
    quarters of what the board has). `run_dir` is for sockets between our own processes; empty: a
    fresh folder below the system's temporary one.
    """

    listen: tuple[str, ...] = (DEFAULT_LISTENER,)
    open_to_network: bool = False
    max_body_bytes: int = 16 * 1024 * 1024
    queue: int = 64
    deadline_s: float = 30.0
    drain_s: float = 10.0
    ready_s: float = 60.0
    threads: int = 1
    models: dict[str, ModelConfig] = field(default_factory=dict)
    trial_data_mib: int = 0
    run_dir: str = ""

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "queue", "deadline_s", "drain_s", "ready_s", "threads"):
            if getattr(self, name) <= 0:
                raise OperatorError(
                    f"serving.{name} is {getattr(self, name)}", hint="it must be above 0"
                )
        if not self.listen:
            raise OperatorError(
                "serving.listen is empty", hint=f"for example [{DEFAULT_LISTENER!r}]"
            )

    def model(self, slot: str) -> ModelConfig:
        """How the model of a slot is served, with nothing left to a default elsewhere."""
        found = self.models.get(slot, ModelConfig())
        return replace(found, threads=found.threads or self.threads)
