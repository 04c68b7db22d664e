"""What a search costs: CPU seconds and memory of `edge-convert search`, its workers included.

Each model is searched twice: with an empty cache, then again from the cache. CPU seconds say more
than seconds on a busy machine. Memory is the peak of the largest process of the tree, as the kernel
counts it (resident, libraries included); workers run one after another, so the command itself, some
70 MiB, is what comes on top. `--write` puts the table into docs/design/search.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench._marks import put
from bench._quant_models import Task, tasks

PAGE = Path(__file__).parents[1] / "docs" / "design" / "search.md"
MARK = "<!-- measured: python -m bench cost --write -->"
MODELS = ("digits-mlp", "digits-cnn", "mobile")
RECIPE = """
targets = [{targets}]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[search]
max_accuracy_drop = 0.01
[measure]
enabled = false
"""


@dataclass(frozen=True)
class Cost:
    """Of one command and all that it waited for: seconds, of the processor too, and peak MiB."""

    seconds: float
    cpu_s: float
    peak_mib: float


def cost_of(command: Sequence[str], *, cwd: Path, variables: Mapping[str, str]) -> Cost:
    """What a command took.

    Raises:
        RuntimeError: it failed; with its last words.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **variables},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        if process.returncode:
            raise RuntimeError(log.read().decode("utf-8", "replace")[-500:])
    return Cost(
        round(time.monotonic() - started, 1),
        round(used.ru_utime + used.ru_stime, 1),
        round(used.ru_maxrss / 1024, 1),
    )


def search_costs(task: Task, folder: Path) -> dict[str, Cost]:
    """`first` and `again` of a model."""
    (folder / "source").write_bytes(task.model)
    np.save(folder / "calibration.npy", task.calibration)
    np.savez(folder / "held_out.npz", x=task.held_out, y=task.truth)
    targets = ", ".join(f'"{kind}-int8"' for kind in task.formats)
    (folder / "r.toml").write_text(RECIPE.format(targets=targets))
    command = [sys.executable, "-m", "edgefleet_converter", "search", "source"]
    command += ["--recipe", "r.toml", "--cache", "cache", "--json"]
    return {name: cost_of(command, cwd=folder, variables={}) for name in ("first", "again")}


def main(argv: list[str]) -> int:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench cost", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", action="append", help="a model; repeatable")
    parser.add_argument("--write", action="store_true", help="into the page")
    options = parser.parse_args(argv)
    found: dict[str, dict[str, Cost]] = {}
    for name, make in tasks():
        if name not in (options.only or MODELS):
            continue
        with tempfile.TemporaryDirectory(prefix="bench-cost-") as folder:
            try:
                found[name] = search_costs(make(), Path(folder))
            except RuntimeError as error:
                sys.stderr.write(f"{name}: no search: {error}\n")
                continue
        if options.write:
            _write(found)
    if options.json:
        told = {
            name: {when: asdict(cost) for when, cost in costs.items()}
            for name, costs in found.items()
        }
        print(json.dumps(told, indent=2))
        return 0
    print(f"{'model':12} {'run':6} {'CPU s':>7} {'peak MiB':>9} {'s':>7}")
    for name, costs in found.items():
        for when, cost in costs.items():
            print(f"{name:12} {when:6} {cost.cpu_s:7} {cost.peak_mib:9} {cost.seconds:7}")
    return 0


def _write(found: Mapping[str, Mapping[str, Cost]]) -> None:
    """Into the page, after each model: a run that is ended leaves what it has."""
    put(PAGE, MARK, f"\n{markdown(found)}\n")


def markdown(found: Mapping[str, Mapping[str, Cost]]) -> str:
    """A line for each model."""
    lines = [
        "| model | CPU s | from the cache | peak MiB | from the cache |",
        "|---|---|---|---|---|",
    ]
    for name, costs in found.items():
        first, again = costs["first"], costs["again"]
        lines.append(
            f"| {name} | {first.cpu_s} | {again.cpu_s} "
            f"| {first.peak_mib:.0f} | {again.peak_mib:.0f} |"
        )
    return "\n".join(lines)
