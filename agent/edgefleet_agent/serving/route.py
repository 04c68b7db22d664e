"""Where requests for a slot go, and copies of them: what the agent sends and the front obeys.

A table is sent whole and replaces the one before in one step, so no request sees half a swap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgefleet_contract import codec
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.canonical import Json

STABLE: Final = "stable"
CANARY: Final = "canary"


@dataclass(frozen=True, slots=True)
class Route:
    """One version in a slot: what it is, and the socket of the worker that serves it.

    `worker` is unique among all workers of one agent's life: it tells versions apart. `platform` is
    the runtime and the format, such as `onnxruntime_onnx`. A slot has one route labelled `stable`,
    and behind it perhaps one labelled `canary`, which gets a `share` of what names no version.
    """

    slot: str
    model: str
    version: int
    worker: str
    path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    platform: str = ""
    label: str = STABLE
    share: float = 0.0

    @property
    def is_canary(self) -> bool:
        """Whether it stands beside the version that serves."""
        return self.label == CANARY


@dataclass(frozen=True, slots=True)
class ShadowRoute:
    """Where copies of a share of the requests go that the worker `watched` answered."""

    watched: str
    worker: str
    path: str
    share: float


@dataclass(frozen=True, slots=True)
class Table:
    """All routes; `seq` rises with every table sent."""

    seq: int
    routes: tuple[Route, ...]
    shadows: tuple[ShadowRoute, ...] = ()


def render_table(table: Table) -> Json:
    """The table as a JSON value."""
    return codec.encode(table)


def parse_table(value: Json) -> Table:
    """The table in a message of the agent."""
    return codec.decode(Table, value, what="routes")
