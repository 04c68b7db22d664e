"""int8: what our search makes of a model, against the quantizers that people use.

Peers: onnxruntime's static quantizer as it is called by default (QDQ, int8, one scale a tensor) and
with the settings that its own guide and experience call best on x86-64 (unsigned activations,
weights by channel, pre-processed model); ai-edge-quantizer's static recipe by default, on our float
TFLite. `fixed` is our own pass without the search. All calibrate on the same examples.

Everybody is judged on all held-out examples; the search saw 70 % of them, and the figures of the
30 % that it did not see stand in `confirmed`. Latency: one inference, one thread, all models of a
format measured in turns in one process; ratios say more than microseconds on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from backports import zstd

from bench._quant_models import Task, tasks
from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import EdgefleetError
from edgefleet_converter.arrays import load_tensors, save_tensors
from edgefleet_converter.bench import Bench
from edgefleet_converter.metrics import accuracy, agreement, sqnr_db
from edgefleet_converter.opening import Opened, open_source
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.hunt import hunt
from edgefleet_converter.search.workshop import Workshop
from edgefleet_converter.targets import Target

ROOT = Path(__file__).parents[1]
OURS = "edgefleet-search"
MAX_DROP = 0.01
PEERS = {
    Format.ONNX: ("onnxruntime-default", "onnxruntime-best"),
    Format.TFLITE: ("ai-edge-quantizer-default",),
}
RECIPE = f"""
targets = ["onnx-int8", "tflite-int8"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[search]
max_accuracy_drop = {MAX_DROP}
[measure]
enabled = false
"""


@dataclass
class Row:
    """One int8 file of one model. Shares with their 95 % intervals."""

    model: str
    format: str
    by: str
    recipe: str = ""
    error: str = ""
    accuracy: tuple[float, float, float] | None = None
    drop: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    size: int | None = None
    size_zstd: int | None = None
    p50_us: float | None = None
    seconds: float | None = None
    confirmed_drop: tuple[float, float, float] | None = None


def peer(name: str) -> None:
    """In a process and folder of its own: `int8` from `model`, calibrated by `calibration.npz`."""
    if name.startswith("onnxruntime"):
        _by_onnxruntime(is_best=name.endswith("best"))
    else:
        _by_ai_edge_quantizer()


def _by_onnxruntime(*, is_best: bool) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    examples = load_tensors(Path("calibration.npz"), "input")[0]

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def __init__(self) -> None:
            self.parts = iter(np.array_split(examples, max(1, len(examples) // 32)))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.parts, None)
            return None if part is None else {name: part}

    import onnx

    name = onnx.load("model").graph.input[0].name
    given: dict[str, Any] = {}
    if is_best:
        quant_pre_process("model", "prepared")
        given = {"per_channel": True, "activation_type": QuantType.QUInt8}
        given["weight_type"] = QuantType.QInt8
    quantize_static("prepared" if is_best else "model", "int8", Reader(), **given)


def _by_ai_edge_quantizer() -> None:
    from ai_edge_quantizer import quantizer, recipe

    from edgefleet_converter.passes.tflite_file import SIGNATURE_KEY, parse

    raw = Path("model").read_bytes()
    (entry,) = parse(raw).signatureDefs[0].inputs
    examples = load_tensors(Path("calibration.npz"), "input")[0]
    feeds = [{entry.name.decode(): examples[i : i + 1]} for i in range(len(examples))]
    made = quantizer.Quantizer(bytearray(raw), recipe.static_wi8_ai8())
    ranges = made.calibrate({SIGNATURE_KEY: feeds})
    Path("int8").write_bytes(bytes(made.quantize(ranges).quantized_model))


def run_peer(name: str, model: Path, calibration: Path, made: Path) -> None:
    """A peer's int8 file, made in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").write_bytes(model.read_bytes())
        (Path(folder) / "calibration.npz").write_bytes(calibration.read_bytes())
        command = [sys.executable, "-m", "bench", "convert", "--peer", name]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1][:200])
        made.write_bytes((Path(folder) / "int8").read_bytes())


def measure(task: Task, scratch: Path, cache: Path) -> list[Row]:
    """All rows of a model."""
    (scratch / "source").write_bytes(task.model)
    np.save(scratch / "calibration.npy", task.calibration)
    np.savez(scratch / "held_out.npz", x=task.held_out, y=task.truth)
    targets = [f"{kind}-int8" for kind in task.formats]
    recipe = parse_recipe(RECIPE, folder=scratch, overrides=[f"targets={targets}"])
    bench = Bench(recipe, scratch, lambda _: None)
    opened = open_source(bench, scratch / "source", trust_pickle=False)
    rows: list[Row] = []
    for kind in map(Format, task.formats):
        rows += _of_format(bench, opened, task, kind, cache)
    return rows


def _of_format(bench: Bench, opened: Opened, task: Task, kind: Format, cache: Path) -> list[Row]:
    target = Target.TFLITE_INT8 if kind is Format.TFLITE else Target.ONNX_INT8
    base = opened.models[kind]
    files: list[tuple[Row, Path]] = [(Row(task.name, kind.value, "float32"), base.path)]
    failed: list[Row] = []

    def made(by: str, make: Callable[[Row, Path], None]) -> None:
        row, path = Row(task.name, kind.value, by), bench.scratch / f"{kind}-{by}"
        started = time.perf_counter()
        try:
            make(row, path)
            bench.run(kind, path, what=f"running {by}")
        except (RuntimeError, EdgefleetError, subprocess.TimeoutExpired) as error:
            row.error = str(error)
            failed.append(row)
            return
        row.seconds = round(time.perf_counter() - started, 1)
        files.append((row, path))

    def ours(row: Row, path: Path) -> None:
        found = hunt(bench, opened, target, task.truth, cache=Cache(cache))
        path.write_bytes(found.model)
        row.recipe = found.report.chosen
        confirmed = found.report.confirmed
        if confirmed is not None and confirmed.accuracy_drop is not None:
            drop = confirmed.accuracy_drop
            row.confirmed_drop = (drop.value, drop.low, drop.high)

    def fixed(_: Row, path: Path) -> None:
        bench.task(
            f"quantize_{kind}",
            "quantizing",
            {f"model.{kind}": base.path, "calibration.npz": bench.scratch / "calibration.npz"},
            {f"int8.{kind}": path},
        )

    def theirs(row: Row, path: Path) -> None:
        run_peer(row.by, base.path, bench.scratch / "calibration.npz", path)

    for name in PEERS[kind]:
        made(name, theirs)
    made("edgefleet-fixed", fixed)
    made(OURS, ours)
    _judge(bench, opened, task, kind, files)
    return [row for row, _ in files] + failed


def _judge(
    bench: Bench, opened: Opened, task: Task, kind: Format, files: list[tuple[Row, Path]]
) -> None:
    base = opened.models[kind].answers
    assert base is not None
    before = accuracy(base.arrays[0], task.truth)
    for row, path in files:
        outputs = bench.run(kind, path, what=f"running {row.by}").arrays
        share = accuracy(outputs[0], task.truth)
        row.accuracy = (share.value, share.low, share.high)
        row.drop = before.value - share.value
        row.agreement = agreement(base.arrays[0], outputs[0]).value
        row.sqnr_db = round(sqnr_db(base.arrays[0], outputs[0]), 1)
        raw = path.read_bytes()
        row.size, row.size_zstd = len(raw), len(zstd.compress(raw, level=19))
    some = bench.scratch / "timed.npz"
    save_tensors(some, "input", (task.held_out[:32],))
    shop = Workshop(bench, kind, {}, some, Cache(bench.scratch / "none"))
    times = shop.times([path.read_bytes() for _, path in files], some, 6.0)
    for (row, _), p50 in zip(files, times, strict=True):
        row.p50_us = round(p50, 1)


def summary(rows: list[Row]) -> dict[str, Any]:
    """Wins against every peer, with a row of ours that is inside the budget; losses by name.

    A peer outside the budget is beaten by a file inside it; else smaller after zstd by 1 %, or
    faster by 5 %, wins; within that it is a tie.
    """
    wins = {"size": 0, "latency": 0}
    counts = {"size": [0, 0, 0], "latency": [0, 0, 0], "sqnr": [0, 0, 0]}
    losses = []
    violations = [f"{r.model} {r.format} {r.by}" for r in rows if _is_over(r)]
    for mine in (row for row in rows if row.by == OURS and not row.error):
        for other in rows:
            if (other.model, other.format) != (mine.model, mine.format):
                continue
            if other.by not in PEERS[Format(mine.format)]:
                continue
            for what, a, b, room in (
                ("size", mine.size_zstd, other.size_zstd, 1.01),
                ("latency", mine.p50_us, other.p50_us, 1.05),
                ("sqnr", -(mine.sqnr_db or 0), -(other.sqnr_db or 0), 1.0),
            ):
                is_win = bool(other.error) or _is_over(other) or _less(a, b, room)
                is_loss = not is_win and _less(b, a, room)
                counts[what][0 if is_win else 2 if is_loss else 1] += 1
                if is_loss:
                    losses.append(
                        f"{mine.model} {mine.format} {what}: {a} against {b} ({other.by})"
                    )
    for what in wins:
        wins[what] = counts[what][0]
    ours = [name for name in violations if name.endswith(OURS)]
    return {
        "wins": wins,
        "won_tied_lost": counts,
        "losses": losses,
        "budget_violations": len(ours),
        "violations": violations,
    }


def _is_over(row: Row) -> bool:
    return row.drop is not None and row.drop > MAX_DROP


def _less(a: float | None, b: float | None, room: float) -> bool:
    return a is not None and b is not None and (a * room < b if room > 1 else a < b)


def main(argv: list[str]) -> int:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench convert", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", action="append", help="a model; repeatable")
    parser.add_argument("--cache", type=Path, help="keep results of the search here")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.peer:
        peer(options.peer)
        return 0
    rows: list[Row] = []
    for name, make in tasks():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory(prefix="bench-convert-") as folder:
            cache = options.cache or Path(folder) / "cache"
            rows += measure(make(), Path(folder), cache)
            mine = [asdict(row) for row in rows if row.model == name]
            sys.stderr.write(f"{name}: {json.dumps(mine)}\n")
    found = summary(rows)
    if options.json:
        print(json.dumps({**found, "table": [asdict(row) for row in rows]}, indent=2))
        return 0
    _print(rows, found)
    return 0


def _print(rows: list[Row], found: dict[str, Any]) -> None:
    print(
        f"{'model':12} {'format':7} {'by':26} {'accuracy':>22} {'agree':>7} {'SQNR':>6} "
        f"{'kB':>7} {'zstd':>7} {'p50 µs':>8} {'s':>6}"
    )
    for row in rows:
        if row.error or row.accuracy is None:
            print(f"{row.model:12} {row.format:7} {row.by:26} failed: {row.error}")
            continue
        value, low, high = row.accuracy
        print(
            f"{row.model:12} {row.format:7} {row.by:26} {value:.4f} ({low:.4f}-{high:.4f}) "
            f"{row.agreement:7.4f} {row.sqnr_db:6.1f} {(row.size or 0) / 1e3:7.1f} "
            f"{(row.size_zstd or 0) / 1e3:7.1f} {row.p50_us or 0:8.1f} {row.seconds or 0:6.1f}"
            f" {row.recipe}{' OVER' if _is_over(row) else ''}"
        )
    for what, (won, tied, lost) in found["won_tied_lost"].items():
        print(f"{what}: {won} won, {tied} tied, {lost} lost")
    for line in found["losses"]:
        print(f"lost: {line}")
