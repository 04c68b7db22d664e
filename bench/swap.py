"""Swaps under load: how many requests fail, what a swap does to latency, whether memory comes back.

Real processes and keep-alive clients on loopback. `p99_ratio` is the 99th percentile while versions
change over the one while nothing does, in the same run; `rss_ratio` is the resident memory of front
and worker after the last swap over the one after the first activation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import psutil

from tests.agent.hosting import Load, RunningHost, running
from tests.agent.models import linear_spec, pixels


def resident(here: RunningHost) -> int:
    """Bytes of front and worker."""
    assert here.host.front_pid is not None
    pids = (here.host.front_pid, *here.host.worker_pids.values())
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def percentile(seconds: list[float], share: float) -> float:
    """Of unsorted seconds, in ms."""
    return 1e3 * sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def measure(swaps: int, requests: int, clients: int) -> dict[str, float]:
    """The figures of one run: `requests` in the steady phase and between any two swaps."""
    body = json.dumps({"instances": pixels(1).tolist()}).encode()
    with tempfile.TemporaryDirectory() as folder, running() as here:
        here.do(here.host.activate((linear_spec(Path(folder), 1),)))
        with Load(here, "/v1/models/digits:predict", body, clients=clients) as load:
            load.more(requests)  # warm
            first = resident(here)
            steady_from = len(load.seconds)
            load.more(requests * 4)
            swaps_from = len(load.seconds)
            for version in range(2, swaps + 2):
                here.do(here.host.activate((linear_spec(Path(folder), version),)))
                load.more(requests)
            last = resident(here)
        steady, swapping = load.seconds[steady_from:swaps_from], load.seconds[swaps_from:]
        return {
            "swaps": swaps,
            "requests": load.total,
            "failures": len(load.failures),
            "p50_ms": round(percentile(steady, 0.5), 3),
            "p99_ms": round(percentile(steady, 0.99), 3),
            "p99_ratio": round(percentile(swapping, 0.99) / percentile(steady, 0.99), 3),
            "rss_mib": round(last / 2**20, 1),
            "rss_ratio": round(last / first, 3),
        }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench swap", description=__doc__)
    parser.add_argument("--swaps", type=int, default=8, help="how many (default 8)")
    parser.add_argument("--requests", type=int, default=400, help="between two (default 400)")
    parser.add_argument("--clients", type=int, default=2, help="keep-alive clients (default 2)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    figures = measure(options.swaps, options.requests, options.clients)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>10} {value:g}")
    return 0 if figures["failures"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
