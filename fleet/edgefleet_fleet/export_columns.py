"""What can be exported, and which columns a table of it has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Noun(StrEnum):
    """What can be exported."""

    DEVICES = "devices"
    ROLLOUTS = "rollouts"
    BUNDLES = "bundles"
    AUDIT = "audit"
    TELEMETRY = "telemetry"


COLUMNS: Final[Mapping[Noun, tuple[str, ...]]] = MappingProxyType(
    {
        Noun.DEVICES: (
            *("id", "online", "seen_at", "enrolled_at", "certificate_expires", "revoked_at"),
            *("hw", "arch", "board", "hardware_class", "agent", "phase", "reason", "detail"),
            *("rollout", "order_seq", "tags", "models", "desired", "quarantined", "key_id"),
        ),
        Noun.ROLLOUTS: (
            *("id", "state", "cause", "slot", "model", "version", "bundle_sha256", "sealed", "to"),
            *("canaries", "waves", "wave", "counts", "by_reason", "policy", "created_at"),
            *("created_by", "ended_at"),
        ),
        Noun.BUNDLES: (
            *("name", "model", "version", "digest", "signature_sha256", "size", "signer"),
            *("complete", "created_at", "created_by"),
        ),
        Noun.AUDIT: ("number", "at", "who", "what", "subject", "detail", "address"),
        Noun.TELEMETRY: (
            *("device", "stream", "ts", "slot", "model", "version", "requests", "failures"),
            *("latency_p50_us", "latency_p95_us", "worker_rss_bytes", "cpu_ratio"),
            *("memory_used_bytes", "memory_total_bytes", "disk_free_bytes", "load1"),
            *("temperature_celsius", "uptime_seconds"),
        ),
    }
)
"""The columns of a table; lines of JSON have all there is."""
