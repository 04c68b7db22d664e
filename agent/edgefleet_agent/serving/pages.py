"""Pages for operators. Spec: [api-5].

Pure: entries in, answers out.
"""

from __future__ import annotations

from typing import Final

from edgefleet_agent.serving import drift
from edgefleet_agent.serving.access import Tally
from edgefleet_agent.serving.answer import TEXT, Answer, give
from edgefleet_agent.serving.door import Asked, Door
from edgefleet_agent.serving.router import Entry

_BOUNDS_US: Final = tuple(
    round(base * 10**power) for power in range(2, 7) for base in (1, 2.5, 5)
)  # 0.1 ms to 5 s
_HELP: Final = {
    "edgefleet_requests_total": ("counter", "Predictions asked for, by HTTP status."),
    "edgefleet_failures_total": ("counter", "Predictions that failed on our side (5xx)."),
    "edgefleet_request_seconds": ("histogram", "Request received to answer ready."),
    "edgefleet_outstanding": ("gauge", "Predictions waiting or running."),
    "edgefleet_worker_up": ("gauge", "1 if a worker is connected."),
    "edgefleet_cache_hits_total": ("counter", "Predictions that had been made before."),
    "edgefleet_cache_misses_total": ("counter", "Predictions that had to be made."),
    **{name: ("gauge", about) for name, about in drift.HELP.items()},
}


def alive(asked: Asked) -> Answer:  # noqa: ARG001  # a page's signature
    """200 while the front runs."""
    return give({"alive": True})


def readiness(asked: Asked) -> Answer:
    """200 if every routed model has a worker, else 503."""
    waiting = [
        entry.route.slot
        for entry in asked.entries
        if not entry.link.is_up and not entry.route.is_canary
    ]
    answer = give({"ready": not waiting, "waiting_for": waiting})
    return Answer(503, answer.body) if waiting else answer


def metrics(asked: Asked) -> Answer:
    """Prometheus' text format 0.0.4; seconds."""
    lines: list[str] = []
    for name, (kind, about) in _HELP.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for entry in asked.entries:
            lines += _samples(name, entry)
    if asked.tally is not None:
        lines += _network(asked.tally)
    return Answer(200, ("\n".join(lines) + "\n").encode(), TEXT)


def _samples(name: str, entry: Entry) -> list[str]:
    labels = f'model="{entry.route.slot}",version="{entry.route.version}"'
    labels += ',label="canary"' if entry.route.is_canary else ""
    if name in drift.HELP:
        return drift.samples(name, labels, entry.drift) if entry.drift is not None else []
    counts = entry.counts
    if name == "edgefleet_requests_total":
        by_status = sorted(counts.by_status.items())
        return [f'{name}{{{labels},code="{status}"}} {n}' for status, n in by_status]
    if name == "edgefleet_request_seconds":
        taken = counts.latencies
        return [
            *(
                f'{name}_bucket{{{labels},le="{us / 1e6:g}"}} {taken.within(us)}'
                for us in _BOUNDS_US
            ),
            f'{name}_bucket{{{labels},le="+Inf"}} {taken.count}',
            f"{name}_sum{{{labels}}} {taken.total_us / 1e6}",
            f"{name}_count{{{labels}}} {taken.count}",
        ]
    if name.startswith("edgefleet_cache_") and entry.cache is None:
        return []
    value = {
        "edgefleet_cache_hits_total": entry.cache.hits if entry.cache else 0,
        "edgefleet_cache_misses_total": entry.cache.misses if entry.cache else 0,
        "edgefleet_failures_total": counts.failures,
        "edgefleet_outstanding": entry.link.outstanding,
        "edgefleet_worker_up": int(entry.link.is_up),
    }[name]
    return [f"{name}{{{labels}}} {value}"]


def _network(tally: Tally) -> list[str]:
    answered, refused = "edgefleet_network_requests_total", "edgefleet_network_refused_total"
    return [
        f"# HELP {answered} Requests from the network, by who asked and HTTP status.",
        f"# TYPE {answered} counter",
        *(
            f'{answered}{{client="{_label(name)}",code="{status}"}} {n}'
            for (name, status), n in sorted(tally.answered.items())
        ),
        f"# HELP {refused} Connections and requests from the network that were turned away.",
        f"# TYPE {refused} counter",
        *(f'{refused}{{reason="{why}"}} {n}' for why, n in sorted(tally.refused.items())),
    ]


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


DOORS: Final = (
    Door("GET", "/healthz", "Whether the server runs", alive),
    Door("GET", "/readyz", "Whether every model has a worker", readiness),
    Door("GET", "/metrics", "Counts and latencies for Prometheus", metrics),
)
