"""What can be asked about models and the server without running a model. Spec: [api-2], [api-5].

Pure: entries in, answers out.
"""

from __future__ import annotations

from typing import Final

from edgefleet_agent.serving.answer import TEXT, Answer, give
from edgefleet_agent.serving.router import Entry
from edgefleet_contract.bundle import TensorSpec

_DT: Final = {
    "bool": "DT_BOOL",
    "int8": "DT_INT8",
    "uint8": "DT_UINT8",
    "int16": "DT_INT16",
    "uint16": "DT_UINT16",
    "int32": "DT_INT32",
    "uint32": "DT_UINT32",
    "int64": "DT_INT64",
    "uint64": "DT_UINT64",
    "float16": "DT_HALF",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "string": "DT_STRING",
}
_BOUNDS_US: Final = tuple(
    round(base * 10**power) for power in range(2, 7) for base in (1, 2.5, 5)
)  # 0.1 ms to 5 s
_HELP: Final = {
    "edgefleet_requests_total": ("counter", "Predictions asked for, by HTTP status."),
    "edgefleet_failures_total": ("counter", "Predictions that failed on our side (5xx)."),
    "edgefleet_request_seconds": ("histogram", "Request received to answer ready."),
    "edgefleet_outstanding": ("gauge", "Predictions waiting or running."),
    "edgefleet_worker_up": ("gauge", "1 if a worker is connected."),
}


def model_list(entries: tuple[Entry, ...]) -> Answer:
    """Every served model (ours; TensorFlow Serving has no such page)."""
    models = [
        {
            "name": entry.route.slot,
            "model": entry.route.model,
            "version": str(entry.route.version),
            "state": _state(entry),
        }
        for entry in entries
    ]
    return give({"models": models})


def status(entry: Entry) -> Answer:
    """The version of a model and whether it serves."""
    version = {
        "version": str(entry.route.version),
        "state": _state(entry),
        "status": {"error_code": "OK", "error_message": ""},
    }
    return give({"model_version_status": [version]})


def metadata(entry: Entry, signature: str) -> Answer:
    """Inputs and outputs as a signature."""
    route = entry.route
    described = {
        "inputs": {spec.name: _tensor(spec) for spec in route.inputs},
        "outputs": {spec.name: _tensor(spec) for spec in route.outputs},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    return give(
        {
            "model_spec": {
                "name": route.slot,
                "signature_name": "",
                "version": str(route.version),
            },
            "metadata": {"signature_def": {"signature_def": {signature: described}}},
        }
    )


def readiness(entries: tuple[Entry, ...]) -> Answer:
    """200 if every routed model has a worker, else 503."""
    waiting = [entry.route.slot for entry in entries if not entry.link.is_up]
    answer = give({"ready": not waiting, "waiting_for": waiting})
    return Answer(503, answer.body) if waiting else answer


def metrics(entries: tuple[Entry, ...]) -> Answer:
    """Prometheus' text format 0.0.4; seconds."""
    lines: list[str] = []
    for name, (kind, about) in _HELP.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for entry in entries:
            lines += _samples(name, entry)
    return Answer(200, ("\n".join(lines) + "\n").encode(), TEXT)


def _samples(name: str, entry: Entry) -> list[str]:
    labels = f'model="{entry.route.slot}",version="{entry.route.version}"'
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
    value = {
        "edgefleet_failures_total": counts.failures,
        "edgefleet_outstanding": entry.link.outstanding,
        "edgefleet_worker_up": int(entry.link.is_up),
    }[name]
    return [f"{name}{{{labels}}} {value}"]


def _state(entry: Entry) -> str:
    return "AVAILABLE" if entry.link.is_up else "LOADING"


def _tensor(spec: TensorSpec) -> dict[str, object]:
    dim = [{"size": str(size), "name": ""} for size in spec.shape]
    return {
        "dtype": _DT[spec.dtype],
        "tensor_shape": {"dim": dim, "unknown_rank": False},
        "name": spec.name,
    }
