"""What a device counts and measures: the board, each model, each source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefleet_contract.drift import Window


@dataclass(frozen=True, slots=True)
class SystemTelemetry:
    """The board: one flat object, ratios from 0 to 1, bytes, degrees Celsius, seconds."""

    SCHEMA: ClassVar[str] = "edgefleet.telemetry.system/1"

    device: str
    ts: int
    cpu_ratio: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    load1: float
    uptime_seconds: float
    agent_rss_bytes: int
    temperature_celsius: float | None = None
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class ModelTelemetry:
    """One model since the agent started: counts rise; latencies are over the last interval, µs.

    `accelerator` is what it runs on; empty from an agent that does not say. `drift` is what was
    counted of requests since it was told last.
    """

    SCHEMA: ClassVar[str] = "edgefleet.telemetry.model/1"

    device: str
    ts: int
    slot: str
    model: str
    version: int
    variant: str
    engine: str
    requests: int
    failures: int
    interval_requests: int
    latency_p50_us: int
    latency_p95_us: int
    worker_rss_bytes: int
    accelerator: str = ""
    drift: Window | None = None
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class SourceTelemetry:
    """One source since the agent started: counts rise [wire-11.6].

    `read` items came from it; of these `predicted` were answered, `failed` could not be, `dropped`
    were thrown away because the model or the link was too slow. `published` results reached the
    broker; `restarts` counts processes of the source that ended.
    """

    SCHEMA: ClassVar[str] = "edgefleet.telemetry.source/1"

    device: str
    ts: int
    source: str
    kind: str
    slot: str
    read: int
    predicted: int
    dropped: int
    failed: int
    published: int
    restarts: int
    schema: str = SCHEMA
