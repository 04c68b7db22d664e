"""Golden vectors: what drawn ones and held-out examples catch of devices that compute otherwise.

A float and an int8 file of each model are made as in a build, without a search. Then one bit of a
weight is turned, one node gives something else, or inputs are prepared in another way. What changes
no answer to any held-out example beyond the tolerance is nothing to be caught; of the rest, the
share is told that sixteen vectors of each kind catch. `by chance` are numbers without anything that
examples have in common. `--write` puts the table into docs/design/golden.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from bench._ours import open_task
from bench._quant_models import Task
from bench._real_models import tasks
from bench._wrong import flipped, kernels, prepared
from edgefleet_contract.bundle import Format
from edgefleet_converter import golden, metrics
from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.runners import (
    OTHER_KERNELS,
    Kernels,
    OnnxRunner,
    TfliteRunner,
    run_all,
)
from edgefleet_converter.stand_ins import LEAST, stand_ins
from edgefleet_converter.targets import Precision

PAGE: Final = Path(__file__).parents[1] / "docs" / "design" / "golden.md"
START, END = "<!-- measured: python -m bench golden --write -->\n", "<!-- end -->"
COUNT, POOL, FLIPS, REAL = 16, 128, 60, 512
MODELS: Final = (
    *("digits-mlp", "digits-cnn", "cancer-mlp", "wine", "ItalyPowerDemand", "GunPoint"),
    *("spam", "mnist-mlp"),
)
ARMS: Final = ("held-out", "drawn", "by chance")
WRONG: Final = {"bit": "a bit turned", "kernel": "a wrong kernel", "input": "another preparation"}


@dataclass
class Row:
    """What was wrong with a file, how often it shows on held-out data, how often it was caught."""

    model: str
    file: str
    wrong: str
    shows: int = 0
    caught: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ARMS, 0))


@dataclass(frozen=True, slots=True)
class Vectors:
    """Inputs, the answers to them, and what these may differ by."""

    inputs: Array
    outputs: Arrays
    allowed: float

    def differ(self, given: Arrays) -> bool:
        """Whether answers are refused. What is no number is."""
        pairs = zip(self.outputs, given, strict=True)
        return not all(
            bool((np.abs(a.astype(np.float64) - b.astype(np.float64)) <= self.allowed).all())
            for a, b in pairs
        )


def answers(kind: Format, raw: bytes, x: Array, which: Kernels = Kernels.DEFAULT) -> Arrays:
    runner = TfliteRunner(raw, which) if kind is Format.TFLITE else OnnxRunner(raw, which)
    return run_all(runner, (x,), which)


def vectors(task: Task, kind: Format, raw: bytes, levels: int) -> dict[str, Vectors]:
    """Chosen as a build chooses them, for each way of getting inputs."""
    x = task.held_out
    given = answers(kind, raw, x)
    quantum = golden.output_quantum(given, 0.0, levels) if levels else 0.0
    classes = task.truth if task.truth is not None else metrics.decide(given[0])
    pools = {
        "held-out": x,
        "drawn": stand_ins((x,), count=POOL, classes=classes)[0],
        "by chance": stand_ins((x[: LEAST - 1],), count=POOL, classes=None)[0],
    }
    found = {}
    for name, pool in pools.items():
        mine = answers(kind, raw, pool)
        others = tuple(answers(kind, raw, pool, one) for one in OTHER_KERNELS[kind])
        chosen = golden.choose(mine, others, count=COUNT, quantum=quantum)
        rows = list(chosen.rows)
        out = tuple(array[rows] for array in mine)
        found[name] = Vectors(pool[rows], out, chosen.max_abs_err_e6 / 1e6)
    return found


def play(task: Task, name: str, kind: Format, raw: bytes, levels: int) -> Iterator[Row]:
    """Everything that is wrong with a file, and who notices."""
    arms = vectors(task, kind, raw, levels)
    x = task.held_out[:REAL]
    real = Vectors(x, answers(kind, raw, x), arms["held-out"].allowed)
    files = {"bit": flipped(kind, raw, FLIPS)}
    if kind is Format.ONNX:
        files["kernel"] = kernels(raw)
    for wrong, spoilt in files.items():
        row = Row(task.name, name, wrong)
        for _, made in spoilt:
            try:
                shows = real.differ(answers(kind, made, x))
            except Exception:  # noqa: BLE001 - a runtime refuses the file: no vector is needed
                continue
            row.shows += shows
            for arm, one in arms.items():
                row.caught[arm] += shows and one.differ(answers(kind, made, one.inputs))
        yield row
    row = Row(task.name, name, "input")
    others = {arm: [seen for _, seen in prepared(one.inputs)] for arm, one in arms.items()}
    for i, (_, seen) in enumerate(prepared(x)):
        shows = real.differ(answers(kind, raw, seen))
        row.shows += shows
        for arm, one in arms.items():
            row.caught[arm] += shows and one.differ(answers(kind, raw, others[arm][i]))
    yield row


def measured(task: Task, toolchain: Path | None) -> Iterator[Row]:
    """A float and an int8 file of each format."""
    with tempfile.TemporaryDirectory() as folder:
        ours = open_task(task, Path(folder), toolchain)
        for word in task.formats:
            kind = Format(word)
            raw = ours.opened.models[kind].path.read_bytes()
            yield from play(task, f"{kind}-float32", kind, raw, 0)
            made = ours.fixed(kind)
            if made.model:
                yield from play(task, f"{kind}-int8", kind, made.model, Precision.INT8.levels)


def page(rows: list[Row]) -> str:
    """The table by model, and the sums."""
    lines = [
        "| model | wrong | shows | held-out | drawn | by chance |",
        "|---|---|--:|--:|--:|--:|",
    ]
    keys = list(dict.fromkeys((row.model, row.wrong) for row in rows))
    for model, wrong in keys:
        some = [row for row in rows if (row.model, row.wrong) == (model, wrong)]
        lines.append(_line(model, WRONG[wrong], some))
    for wrong, said in WRONG.items():
        lines.append(_line("**all**", said, [row for row in rows if row.wrong == wrong]))
    return "\n".join(lines) + "\n"


def _line(model: str, wrong: str, rows: list[Row]) -> str:
    shows = sum(row.shows for row in rows)
    shares = [_share(sum(row.caught[arm] for row in rows), shows) for arm in ARMS]
    return f"| {model} | {wrong} | {shows} | {' | '.join(shares)} |"


def _share(caught: int, shows: int) -> str:
    return f"{100 * caught / shows:.0f} %" if shows else "-"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench golden", description=__doc__)
    parser.add_argument("--toolchain", type=Path, help="an environment with TensorFlow, for Keras")
    parser.add_argument("--models", default=",".join(MODELS), help="by name, with commas")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    asked = parser.parse_args(argv)
    known: Mapping[str, object] = dict(tasks(asked.toolchain))
    rows: list[Row] = []
    for name in asked.models.split(","):
        make = known[name]
        assert callable(make)
        rows += measured(make(), asked.toolchain)
        sys.stderr.write(f"{name}: {sum(row.shows for row in rows)} shown so far\n")
    told = page(rows)
    if asked.write:
        text = PAGE.read_text("utf-8")
        before, _, rest = text.partition(START)
        PAGE.write_text(f"{before}{START}{told}{END}{rest.partition(END)[2]}", "utf-8")
    sys.stdout.write(json.dumps([asdict(row) for row in rows]) + "\n" if asked.json else told)
    return 0
