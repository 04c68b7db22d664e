"""How many devices a bad model reaches before a rollout stops: ours against the rules of others.

A simulation of the pure core (no broker, no store): 10,000 devices of four hardware classes, a
model that is bad on x % of one of them (30 % of the fleet), in four ways. `harmed` are devices
that ran the model and that it is bad on, `reached` all that ran it; means over seeds. The
references are those of `_rollout_rules.py`.

`blast.worst_ratio`: ours over the best of the reference rules, all of x added up, in the failure
mode where that is largest. `false_stops`: how often a good model was stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from bench._marks import put
from bench._rollout_rules import OURS, RULES
from bench._rollout_world import MODES, Blast, World, play

PAGE = Path(__file__).parents[1] / "docs" / "design" / "rollout.md"
MARK = "<!-- measured: python -m bench rollout -->"
SHARES = (100, 50, 25, 10)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench rollout", description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--good-seeds", type=int, default=20, help="rollouts of a good model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    given = parser.parse_args(argv)
    figures = measure(given.devices, given.seeds, given.good_seeds)
    if given.write:
        put(PAGE, MARK, table(figures))
    print(json.dumps(figures, indent=2) if given.json else table(figures))
    return 0


def measure(devices: int, seeds: int, good_seeds: int) -> dict[str, Any]:
    """All figures."""
    with ProcessPoolExecutor() as pool:
        asked = [(devices, mode, share, seeds) for mode in MODES for share in SHARES]
        good = pool.submit(_good, devices, good_seeds)
        cells = list(pool.map(_cell, *zip(*asked, strict=True)))
    by_mode = {mode: _ratio([cell for cell in cells if cell["mode"] == mode]) for mode in MODES}
    worst = max(by_mode, key=lambda mode: by_mode[mode])
    return {
        "devices": devices,
        "seeds": seeds,
        "blast": {
            "worst_ratio": by_mode[worst],
            "worst_mode": worst,
            "by_mode": by_mode,
            "worst_cell_ratio": max(_ratio([cell]) for cell in cells),
            "cells": cells,
        },
        "good": good.result(),
    }


def _cell(devices: int, mode: str, share: int, seeds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"mode": mode, "percent": share, "reached": {}, "harmed": {}}
    for name in RULES:
        blasts = [_play(name, World(devices, mode, share / 100, seed)) for seed in range(seeds)]
        found["reached"][name] = round(statistics.fmean(blast.reached for blast in blasts), 1)
        found["harmed"][name] = round(statistics.fmean(blast.harmed for blast in blasts), 1)
    return found


def _play(name: str, world: World) -> Blast:
    return play(RULES[name](world), world)  # type: ignore[arg-type] # they are all rules


def _ratio(cells: list[dict[str, Any]]) -> float:
    """Ours over the better of the references, over these cells."""
    sums = {name: sum(cell["harmed"][name] for cell in cells) for name in RULES}
    return round(sums.pop(OURS) / min(sums.values()), 4)


def _good(devices: int, seeds: int) -> dict[str, Any]:
    """How rollouts of a model go that is bad nowhere."""
    found: dict[str, Any] = {"rollouts": seeds, "false_stops": {}, "hours": {}}
    for name in RULES:
        blasts = [_play(name, World(devices, "error", 0.0, 1000 + seed)) for seed in range(seeds)]
        found["false_stops"][name] = sum(blast.stopped for blast in blasts)
        done = [blast.seconds / 3600 for blast in blasts if not blast.stopped]
        found["hours"][name] = round(statistics.median(done), 1) if done else None
    return found


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    names = list(RULES)
    lines = [f"| bad on x % of 30 % of the fleet | {' | '.join(names)} | ours / best other |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for cell in figures["blast"]["cells"]:
        harmed = " | ".join(f"{cell['harmed'][name]:,.0f}" for name in names)
        lines.append(f"| {cell['mode']}, {cell['percent']} % | {harmed} | {_ratio([cell]):.2f} |")
    good = figures["good"]
    stops = " | ".join(f"{good['false_stops'][n]} of {good['rollouts']}" for n in names)
    hours = " | ".join("" if good["hours"][n] is None else f"{good['hours'][n]} h" for n in names)
    lines += [f"| good model, stopped | {stops} | |", f"| good model, took | {hours} | |"]
    blast = figures["blast"]
    lines.append("")
    lines.append(
        f"Worst failure mode: {blast['worst_mode']}, {blast['worst_ratio']:.2f} of the best other"
        f" rule over all x; worst single row {blast['worst_cell_ratio']:.2f}."
        f" {figures['devices']:,} devices, means over {figures['seeds']} seeds."
    )
    return "\n".join(lines)
