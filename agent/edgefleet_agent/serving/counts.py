"""What was asked of one version and how it went, as counts that only rise, or as what is new."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgefleet_agent.serving.latency import Latencies, pack, unpack


@dataclass(slots=True)
class Counts:
    """Requests, failures (5xx; what a client got wrong is none), latencies of those answered."""

    requests: int = 0
    failures: int = 0
    by_status: dict[int, int] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)

    def count(self, status: int, microseconds: int) -> None:
        """Count one request: received to answer ready."""
        self.requests += 1
        self.failures += status >= 500
        self.by_status[status] = self.by_status.get(status, 0) + 1
        if status < 400:
            self.latencies.add(microseconds)

    def merge(self, other: Counts) -> None:
        """Count all that another counted."""
        self.requests += other.requests
        self.failures += other.failures
        for status, n in other.by_status.items():
            self.by_status[status] = self.by_status.get(status, 0) + n
        self.latencies.merge(other.latencies)


def pack_counts(counts: Counts) -> dict[str, object]:
    """The JSON object of counts."""
    return {
        "by_status": {str(status): n for status, n in counts.by_status.items()},
        "latencies": pack(counts.latencies),
    }


def unpack_counts(value: dict[str, dict[str, object]]) -> Counts:
    """The counts of a JSON object of ours."""
    by_status = {int(status): int(str(n)) for status, n in value["by_status"].items()}
    return Counts(
        requests=sum(by_status.values()),
        failures=sum(n for status, n in by_status.items() if status >= 500),
        by_status=by_status,
        latencies=unpack(value["latencies"]),
    )
