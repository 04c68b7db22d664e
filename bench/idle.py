"""What an agent costs while nobody asks anything: `edge-agent run` with one model, as installed.

Enrolled at a real control room and connected to its broker. For each process and for all: memory
(PSS, which counts what is shared once), CPU seconds a minute, and wake-ups a second: how often its
threads went to sleep of their own accord. `ready_s` is from the start of the program to the first
"ready" of the model, median of some starts; `programs_ready_s` the same without the zygote. With
`--cold` (root) each begins with the file cache of the machine dropped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from bench._device import Device, installed
from bench._models import NETS
from bench._tree import Cost, costs, label, until

_SETTLE_S = 5.0


def rest(device: Device, seconds: float) -> dict[str, float]:
    """The figures of this time, by process and of all."""
    before = costs(device.pid)
    time.sleep(seconds)
    after = costs(device.pid)
    found: dict[str, float] = defaultdict(float)
    for pid, cost in after.items():
        was = before.get(pid, Cost(0, 0, 0, 0))
        figures = {
            "pss_mib": cost.pss_mib,
            "cpu_s_a_minute": (cost.cpu_s - was.cpu_s) / seconds * 60,
            "wakeups_a_second": (cost.sleeps - was.sleeps) / seconds,
        }
        for name, value in figures.items():
            found[f"{label(pid)}.{name}"] += value
            found[name] += value
    found["processes"] = len(after)
    return dict(sorted(found.items(), key=lambda item: ("." in item[0], item[0])))


def ready_s(device: Device, settings: str, *, starts: int, cold: bool) -> float:
    """Median seconds from the start of the agent until its model answers."""
    taken = []
    for _ in range(starts):
        device.stop()
        if cold:
            Path("/proc/sys/vm/drop_caches").write_text("3")
        begun = time.perf_counter()
        device.start(settings)
        until(device.is_ready, "ready", pause_s=0.005)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run."""
    with installed(options.model, NETS[options.model]()) as device:
        device.site.wait("the link", lambda: device.site.get("/devices/pi-1")["online"])
        # Without a history: what an install left behind is not at rest.
        found = {"ready_s": ready_s(device, "", starts=options.starts, cold=options.cold)}
        programs = "[runtime]\nzygote = false\n"
        found["programs_ready_s"] = ready_s(
            device, programs, starts=options.starts, cold=options.cold
        )
        device.stop()
        device.start()
        until(device.is_ready, "ready")
        time.sleep(_SETTLE_S)
        found |= rest(device, options.seconds)
    return {name: round(value, 3) for name, value in found.items()}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="at rest (default 60)")
    parser.add_argument("--starts", type=int, default=5, help="of each kind (default 5)")
    parser.add_argument("--model", choices=sorted(NETS), default="small", help="(default small)")
    parser.add_argument("--cold", action="store_true", help="drop the file cache before a start")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    figures = measure(options)
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:>30} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
