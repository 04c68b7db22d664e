"""What a worker costs, forked from the zygote and started as a program, in one run.

For each runtime that is installed: the seconds from the request to a worker that is ready (median),
the memory that is a worker's own (USS), its proportional share (PSS), and the PSS of all processes
with so many workers, the zygote among them. Ratios are forked over started: below 1, forks win.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from edgefleet_agent.ports import ModelSpec
from edgefleet_agent.runtime.engines import available
from edgefleet_agent.runtime.worker_process import WorkerProcess
from edgefleet_agent.runtime.zygote_process import ZygoteProcess
from edgefleet_agent.serving.config import ModelConfig
from tests.agent.models import linear_spec, tflite_spec

MODELS: dict[str, Callable[[Path], ModelSpec]] = {"onnxruntime": linear_spec, "litert": tflite_spec}


async def workers(
    spec: ModelSpec, folder: Path, count: int, zygote: ZygoteProcess | None
) -> dict[str, float]:
    """Start so many, weigh them while all are there, end them."""
    async with AsyncExitStack() as running:
        seconds, pids = [], []
        for number in range(count):
            worker = WorkerProcess(
                f"w{number}",
                spec,
                folder=folder,
                serving=ModelConfig(threads=1),
                ready_s=60,
                zygote=zygote,
            )
            running.push_async_callback(worker.stop)
            begun = time.perf_counter()
            failed = await worker.start()
            seconds.append(time.perf_counter() - begun)
            assert failed is None, failed
            assert worker.pid is not None
            pids.append(worker.pid)
        if zygote is not None and zygote.pid is not None:
            pids.append(zygote.pid)
        memory = [psutil.Process(pid).memory_full_info() for pid in pids]
        mib = 2**20
        return {
            "ready_s": statistics.median(seconds),
            "own_mib": statistics.median(each.uss for each in memory[:count]) / mib,
            "share_mib": statistics.median(each.pss for each in memory[:count]) / mib,
            "all_mib": sum(each.pss for each in memory) / mib,
        }


async def measure(engine: str, counts: tuple[int, ...]) -> dict[str, float]:
    """The figures of one runtime. The zygote has this one alone."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = MODELS[engine](folder)
        async with ZygoteProcess((engine,), threads=1) as zygote:
            for count in counts:
                # Both once before: files are in the page cache, and the zygote is up.
                for forker in (zygote, None):
                    await workers(spec, folder, 1, forker)
                forked = await workers(spec, folder, count, zygote)
                started = await workers(spec, folder, count, None)
                for key in forked:
                    found[f"{key}_{count}_forked"] = round(forked[key], 4)
                    found[f"{key}_{count}_started"] = round(started[key], 4)
                    found[f"{key}_{count}_ratio"] = round(forked[key] / started[key], 3)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench processes", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2, 4, 8], help="at a time (default 1 2 4 8)"
    )
    options = parser.parse_args(argv)
    engines = [engine for engine in available() if engine in MODELS]
    figures = {engine: asyncio.run(measure(engine, tuple(options.workers))) for engine in engines}
    if options.json:
        print(json.dumps(figures))
        return 0
    for engine, found in figures.items():
        for name, value in found.items():
            print(f"{engine:>12} {name:<20} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
