"""Precisions: what each target makes of a model, in accuracy, noise, size and speed.

Every target that a recipe may name is made of the float model of its format by the same worker task
as in a build, and judged on all held-out examples. Latency: one inference of one example on one
thread, all files of a format measured in turns in one process, as a ratio to float32; only ratios
mean anything on a busy machine, and nothing of it is about ARM. `--write` puts the table into
docs/design/precisions.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from backports import zstd

from bench._quant_models import Task, tasks
from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import EdgefleetError
from edgefleet_converter.arrays import save_tensors
from edgefleet_converter.bench import CALIBRATION, Answers, Bench
from edgefleet_converter.fitting import fit
from edgefleet_converter.metrics import accuracy, agreement, sqnr_db
from edgefleet_converter.opening import open_source
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.workshop import Workshop
from edgefleet_converter.targets import Precision, Target
from edgefleet_converter.variants import RUNTIMES

PAGE = Path(__file__).parents[1] / "docs" / "design" / "precisions.md"
START, END = "<!-- measured: python -m bench precisions --write -->\n", "<!-- end -->"
_PACKAGES = ("onnx", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "scikit-learn")
_SECONDS = 6.0
_EXAMPLES = 32
_RECIPE = """
targets = [{targets}]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[measure]
enabled = false
"""


@dataclass
class Row:
    """One target of one model; `latency` is relative to float32 of the same format."""

    model: str
    target: str
    error: str = ""
    accuracy: float = 0.0
    agreement: float = 0.0
    sqnr_db: float | None = None
    size: int = 0
    size_zstd: int = 0
    latency: float = 0.0
    runtimes: str = ""


def measure(task: Task, folder: Path) -> list[Row]:
    """All targets of a model."""
    source = folder / "source"
    source.write_bytes(task.model)
    np.save(folder / "calibration.npy", task.calibration)
    np.savez(folder / "held_out.npz", x=task.held_out, y=task.truth)
    floats = ", ".join(f'"{kind}-float32"' for kind in task.formats)
    recipe = parse_recipe(_RECIPE.format(targets=floats), folder=folder)
    bench = Bench(recipe, folder, lambda _: None)
    opened = open_source(bench, source, trust_pickle=False)
    rows: list[Row] = []
    for kind in map(Format, task.formats):
        base = opened.models[kind]
        assert base.answers is not None  # none of these has state
        made: list[tuple[Row, Path]] = []
        for target in (one for one in Target if one.kind is kind and not one.is_as_is):
            row, path = Row(task.name, target), folder / f"{target}.made"
            rows.append(row)
            try:
                _make(bench, target, base.path, path)
                _judge(bench, row, target, path, base.answers, task)
            except EdgefleetError as error:
                row.error = str(error)
                continue
            made.append((row, path))
        _time(bench, kind, task, made)
    return rows


def _make(bench: Bench, target: Target, source: Path, made: Path) -> None:
    if target.precision is Precision.FLOAT32:
        made.write_bytes(source.read_bytes())
        return
    kind = target.kind
    files = {f"model.{kind}": source, "calibration.npz": bench.scratch / CALIBRATION}
    outputs = {f"made.{kind}": made}
    bench.task(f"make_{kind}", f"making {target}", files, outputs, way=target.precision)


def _judge(bench: Bench, row: Row, target: Target, path: Path, base: Answers, task: Task) -> None:
    outputs = bench.run(target.kind, path, what=f"running {target}").arrays
    row.accuracy = accuracy(outputs[0], task.truth).value
    row.agreement = agreement(base.arrays[0], outputs[0]).value
    if target.precision is not Precision.FLOAT32:
        row.sqnr_db = round(sqnr_db(base.arrays[0], outputs[0]), 1)
    raw = path.read_bytes()
    row.size, row.size_zstd = len(raw), len(zstd.compress(raw, level=19))
    needs = bench.needs(target.kind, path)
    found = fit(target.kind, needs, RUNTIMES[target.kind], {}, what=target)
    row.runtimes = ", ".join(f"{name} {version}" for name, version in found.runtimes.items())


def _time(bench: Bench, kind: Format, task: Task, made: list[tuple[Row, Path]]) -> None:
    some = bench.scratch / "timed.npz"
    save_tensors(some, "input", (task.held_out[:_EXAMPLES],))
    shop = Workshop(bench, kind, {}, some, Cache(bench.scratch / "none"))
    times = shop.times([path.read_bytes() for _, path in made], some, _SECONDS)
    of_float = next(
        time
        for (row, _), time in zip(made, times, strict=True)
        if Target(row.target).precision is Precision.FLOAT32
    )
    for (row, _), time in zip(made, times, strict=True):
        row.latency = round(time / of_float, 2)


def main(argv: list[str]) -> int:
    """Print the table as Markdown, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench precisions", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", action="append", help="a model; repeatable")
    parser.add_argument("--write", action="store_true", help="into the page")
    options = parser.parse_args(argv)
    rows: list[Row] = []
    for name, make in tasks():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory(prefix="bench-precisions-") as folder:
            rows += measure(make(), Path(folder))
        sys.stderr.write(f"{name}: {len(rows)} rows\n")
    if options.write:
        _write(rows)
    if options.json:
        print(json.dumps({"table": [asdict(row) for row in rows]}, indent=2))
        return 0
    for line in markdown(rows):
        print(line)
    return 0


def _write(rows: list[Row]) -> None:
    """Into the page; models that were not asked for keep the rows that they have there."""
    head, _, rest = PAGE.read_text("utf-8").partition(START)
    old, _, after = rest.partition(END)
    kept: dict[str, list[str]] = {name: [] for name, _ in tasks()}
    lines = [line for line in old.splitlines() if line.startswith("| ")]
    for line in lines:
        name = line.split(" | ")[0].removeprefix("| ")
        kept.get(name, []).append(line)
    for row in rows:
        kept[row.model] = [line for line in markdown(rows) if line.startswith(f"| {row.model} |")]
    words = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    table = "\n".join([*markdown([]), *(line for each in kept.values() for line in each)])
    PAGE.write_text(f"{head}{START}\n{words}.\n\n{table}\n\n{END}{after}", "utf-8")


def markdown(rows: list[Row]) -> list[str]:
    """The table as it stands in docs/design/precisions.md."""
    lines = [
        "| model | target | accuracy | agreement | SQNR, dB | kB | zstd, kB | latency | runtimes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.error:
            lines.append(f"| {row.model} | {row.target} | {row.error} | | | | | | |")
            continue
        noise = "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
        lines.append(
            f"| {row.model} | {row.target} | {row.accuracy:.3f} | {row.agreement:.3f} | {noise} | "
            f"{row.size / 1e3:.1f} | {row.size_zstd / 1e3:.1f} | {row.latency:.2f} | "
            f"{row.runtimes} |"
        )
    return lines
