"""From counts to telemetry messages. Core: values in, values out."""

from __future__ import annotations

from edgefleet_agent.ports import SlotStats
from edgefleet_contract.telemetry import ModelTelemetry


def model_telemetry(stats: SlotStats, *, device: str, ts_ms: int) -> ModelTelemetry:
    """The message that says how a model of `device` did; `ts_ms` is ms since 1970."""
    return ModelTelemetry(
        device=device,
        ts=ts_ms,
        slot=stats.slot,
        model=stats.model,
        version=stats.version,
        variant=stats.variant,
        engine=stats.engine,
        requests=stats.requests,
        failures=stats.failures,
        interval_requests=stats.interval_requests,
        latency_p50_us=stats.latency_p50_us,
        latency_p95_us=stats.latency_p95_us,
        worker_rss_bytes=stats.worker_rss_bytes,
        accelerator=stats.accelerator,
        drift=stats.drift,
    )


def where_it_runs(stats: SlotStats) -> str:
    """What a model runs on, and why not on what was preferred; empty where there is no more to say
    than that it serves."""
    if not stats.passed_over:
        return f"on {stats.accelerator}" if stats.accelerator else ""
    return f"on {stats.accelerator}, not on {'; '.join(stats.passed_over)}"
