"""The fleet in Prometheus' text format 0.0.4, in base units; `promtool check metrics` passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from edgefleet_fleet.glance import glance
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.services import Services

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def text(services: Services) -> str:
    """All metrics, now."""
    with services.room.store.begin() as tx:
        devices = glance(tx.devices.standings(), now=int(services.room.clock()))
        states = Counter(row.state for row in tx.rollouts.list(limit=10_000))
    running = {tuple(name.split("@")): count for name, count in sorted(devices.running.items())}
    link = services.room.link
    lines: list[str] = []
    lines += _family(
        "edgefleet_devices",
        "gauge",
        "Devices that are enrolled, by presence.",
        {
            _labels(online="true"): devices.online,
            _labels(online="false"): devices.total - devices.online,
        },
    )
    lines += _family(
        "edgefleet_devices_running",
        "gauge",
        "Devices that serve a model, by version.",
        {
            _labels(model=model, version=version): count
            for (model, version), count in running.items()
        },
    )
    lines += _family(
        "edgefleet_rollouts",
        "gauge",
        "Rollouts by state.",
        {_labels(state=state.value): states[state] for state in State},
    )
    lines += _family(
        "edgefleet_broker_connected",
        "gauge",
        "Whether the broker is connected: 1 or 0.",
        {"": int(link is not None and link.is_connected)},
    )
    lines += _family(
        "edgefleet_messages_total",
        "counter",
        "Messages of devices that were stored, by channel.",
        {_labels(channel=k): n for k, n in sorted(services.ingest.taken.items())},
    )
    lines += _family(
        "edgefleet_messages_dropped_total",
        "counter",
        "Messages that were dropped, by cause.",
        {_labels(cause=k): n for k, n in sorted(services.ingest.dropped.items())},
    )
    sent = services.blobs.sent
    lines += _family(
        "edgefleet_blob_answers_total",
        "counter",
        "Answers to devices that fetch blobs over the broker, by kind.",
        {_labels(kind=kind): sent[kind] for kind in ("blocks", "unknown", "busy")},
    )
    lines += _family(
        "edgefleet_blob_sent_bytes_total",
        "counter",
        "Bytes of blobs that were sent over the broker.",
        {"": sent["bytes"]},
    )
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, sentence: str, samples: Mapping[str, int]) -> list[str]:
    head = [f"# HELP {name} {sentence}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{labels} {value}" for labels, value in samples.items()]


def _labels(**labels: str) -> str:
    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{key}="{escape(value)}"' for key, value in labels.items()) + "}"
