"""What a device tells of itself: its full state, whether it is there, the steps of an install."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefleet_contract.bundle import Digest
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A model that serves: what it is, which variant was chosen on what runtime, and why."""

    slot: str
    model: str
    version: int
    bundle_sha256: Digest
    variant: str
    engine: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """The full state of a device: retained, sent on every change and daily."""

    SCHEMA: ClassVar[str] = "edgefleet.reported/1"

    device: str
    boot_id: str
    ts: int
    agent: str
    order_seq: int
    rollout: str
    phase: Phase
    models: tuple[RunningModel, ...]
    capabilities: Capabilities
    reason: Reason | None = None
    detail: str = ""
    quarantined: tuple[Digest, ...] = ()
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class Presence:
    """Online or offline; the offline one is the last will."""

    SCHEMA: ClassVar[str] = "edgefleet.presence/1"

    device: str
    boot_id: str
    online: bool
    agent: str
    ts: int
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class Event:
    """A step of an install. `boot_id` and `seq` name it: the fleet counts it once.

    `measurements` are numbers taken on the way: `download_bytes`, of these `bytes_http`,
    `bytes_mqtt`, … by transport and `delta_bytes` of deltas, which were `delta_saved_bytes` fewer
    than the files that they made; `load_ms`, `p95_us`, …; those of a shadow are in [wire-3.8].
    """

    SCHEMA: ClassVar[str] = "edgefleet.event/1"

    device: str
    boot_id: str
    seq: int
    ts: int
    order_seq: int
    rollout: str
    phase: Phase
    models: tuple[str, ...]
    reason: Reason | None = None
    detail: str = ""
    measurements: dict[str, float] | None = None
    schema: str = SCHEMA
