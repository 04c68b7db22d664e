"""int8: what our search makes of a model, against the quantizers that people use.

Models: all real ones that can be quantized, networks trained here on real images, hard variants of
them, and MLPerf Tiny's with their publisher's scores. Others: onnxruntime, Olive, NNCF,
ai-edge-quantizer and TensorFlow's converter, each at its defaults and at its best (a search of its
own, or a grid that somebody who knows it would try), in an environment of its own, on the same
examples. `edgefleet-fixed` is our own pass without the search, `edgefleet-latency` the search that
is asked for the fastest file; both searches share what they made.

Everybody is judged on all held-out examples, of which the search and the best of others saw 70 %.
Latency: one inference, one thread, all files of a model and format in turns in one process; ratios
say more than microseconds on a busy machine. Results are kept by digest: a run goes on where it was
interrupted. `--write` takes what was measured last of models that were not asked for, and says
which of it an earlier converter made.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from backports import zstd

from bench._anchors import ANCHORS, CACHE, WAYS, Job, Made, run_anchor, script, versions
from bench._convert_page import PAGE, keep_rows, write_page
from bench._convert_table import FAST, FIXED, FLOAT, OURS, Row, lines, summary
from bench._float_ends import takes_int8, with_float_ends
from bench._kept import Kept, digest_of
from bench._ours import MAX_DROP, RECIPE, Ours, open_task
from bench._quant_models import Task
from bench._real_models import tasks
from bench._trained import Untrained
from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import EdgefleetError
from edgefleet_converter.arrays import save_tensors
from edgefleet_converter.metrics import accuracy, agreement, sqnr_db
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.wishes import Objective
from edgefleet_converter.search.workshop import Workshop
from tests.models.cache import Unavailable

ROOT = Path(__file__).parents[1]
OURS_IS = (ROOT / "converter", ROOT / "contract" / "edgefleet_contract")
SCHEMA = 6
_TIMING_S = 15.0


def tell(words: str) -> None:
    """To whoever waits."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def code_of(*folders: Path) -> str:
    """The digest of all that is written in Python there."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return digest_of(*paths)


def measure(task: Task, peers: list[str], kept: Kept, toolchain: Path | None) -> list[Row]:
    """All rows of a model."""
    ours_by = code_of(*OURS_IS)
    theirs_by = [digest_of(script(name), versions(name)) for name in peers]
    shared = digest_of(script("_").with_name("quantizing.py"))
    data = [task.key or task.model, task.calibration, task.held_out]
    data += [] if task.truth is None else [task.truth]
    whole = digest_of(SCHEMA, RECIPE, ours_by, peers, theirs_by, shared, *data)
    if (found := kept.said(whole)) is not None:
        return [Row(**row) for row in found]
    with tempfile.TemporaryDirectory(prefix="bench-convert-") as folder:
        try:
            ours = open_task(task, Path(folder), toolchain)
        except EdgefleetError as error:
            return [Row(task.name, kind, OURS, error=error.message) for kind in task.formats]
        rows: list[Row] = []
        for kind in map(Format, task.formats):
            rows += _of_format(ours, kind, peers, kept, digest_of(ours_by, RECIPE, *data))
    kept.say(whole, [asdict(row) for row in rows])
    return rows


def _of_format(ours: Ours, kind: Format, peers: list[str], kept: Kept, mine: str) -> list[Row]:
    job, found = ours.job(kind), {}
    for name in peers:
        anchor = ANCHORS[name]
        if anchor.format is not kind or (anchor.from_keras and job.source is None):
            continue
        for way in WAYS:
            key = _key_of(name, way, job)
            made = kept.made(key)
            if made is None:
                made = run_anchor(name, way, job, tell)
                kept.keep(key, made)
                _told(ours.task.name, kind, f"{name}-{way}", made)
            found[f"{name}-{way}"] = made
    with tempfile.TemporaryDirectory() as cache:  # the second search makes nothing again
        for by in (FIXED, OURS, FAST):
            key = digest_of(mine, by, kind.value)
            made = kept.made(key)
            if made is None:
                made = _ours(ours, kind, by, Path(cache))
                kept.keep(key, made)
                _told(ours.task.name, kind, by, made)
            found[by] = made
    return _judge(ours, kind, found)


def _ours(ours: Ours, kind: Format, by: str, cache: Path) -> Made:
    if by == FIXED:
        return ours.fixed(kind)
    return ours.search(kind, cache, Objective.LATENCY if by == FAST else Objective.SIZE)


def _told(model: str, kind: Format, by: str, made: Made) -> None:
    words = made.error or f"{len(made.model)} bytes, {made.recipe}"
    tell(f"{model} {kind} {by}: {made.cpu_s:.0f} s of processors, {words}")


def _key_of(name: str, way: str, job: Job) -> str:
    source = job.source if ANCHORS[name].from_keras else job.model
    parts = [script(name), script(name).with_name("quantizing.py"), versions(name), source]
    parts += [job.calibration, [way, job.max_drop, job.min_sqnr_db]]
    if way == "best":
        parts += [job.seen, job.says, *([] if job.truth is None else [job.truth])]
    return digest_of(*parts)


def _judge(ours: Ours, kind: Format, made: dict[str, Made]) -> list[Row]:
    """Figures of the float file and of all that was made; what does not run is an error."""
    task, bench, base = ours.task, ours.bench, ours.opened.models[kind]
    rows = [Row(task.name, kind.value, FLOAT, published=task.published)]
    files = [base.path]
    for by, one in made.items():
        row = Row(task.name, kind.value, by, one.recipe, one.error)
        row.seconds, row.cpu_s, row.peak_mb = one.seconds, one.cpu_s, one.peak_mb
        path = bench.scratch / f"{kind}-{by}"
        path.write_bytes(one.model)
        rows.append(row)
        files.append(path)
    for row, path in zip(rows, files, strict=True):
        try:
            _figures(ours, kind, row, path)
        except (EdgefleetError, ValueError) as error:
            row.error = row.error or f"it does not run: {error}"
    some = bench.scratch / "timed.npz"
    save_tensors(some, "input", (task.held_out[:32],))
    shop = Workshop(bench, kind, {}, some, Cache(bench.scratch / "none"))
    fit = [(row, path.read_bytes()) for row, path in zip(rows, files, strict=True) if not row.error]
    fit = [(row, with_float_ends(raw) if row.takes_int8 else raw) for row, raw in fit]
    models = list(dict.fromkeys(raw for _, raw in fit))  # equal files take equally long
    times = dict(zip(models, shop.times(models, some, _TIMING_S), strict=True))
    for row, raw in fit:
        row.p50_us = round(times[raw], 2)
    return rows


def _figures(ours: Ours, kind: Format, row: Row, path: Path) -> None:
    if row.error:
        return
    task, before = ours.task, ours.says(kind)
    after = ours.bench.run(kind, path, what=f"running {row.by}").arrays[0]
    row.takes_int8 = kind is Format.TFLITE and takes_int8(path.read_bytes())
    row.sqnr_db = round(sqnr_db(before, after), 1)
    if ours.has_classes:
        same = agreement(before, after)
        row.agreement = (same.value, same.low, same.high)
        row.drop = 1 - same.value
    if task.truth is not None:
        share = accuracy(after, task.truth)
        row.accuracy = (share.value, share.low, share.high)
        row.drop = accuracy(before, task.truth).value - share.value
    if task.labelled is not None:
        row.labelled = f"{row.by}, {kind}: {_right(ours, kind, path)}"
    least = ours.bench.recipe.budget.min_sqnr_db
    is_exact = row.by == FLOAT
    row.is_over = not is_exact and ((row.drop or 0) > MAX_DROP or row.sqnr_db < least)
    raw = path.read_bytes()
    row.size, row.size_zstd = len(raw), len(zstd.compress(raw, level=19))


def _right(ours: Ours, kind: Format, path: Path) -> str:
    """How many of the few labelled examples a file gets right."""
    assert ours.task.labelled is not None
    x, y = ours.task.labelled
    save_tensors(ours.bench.scratch / "labelled.npz", "input", (x,))
    said = ours.bench.run(kind, path, what="labelled examples", data="labelled.npz").arrays[0]
    return f"{round(accuracy(said, y).value * len(y))} of {len(y)} labelled images"


def main(argv: list[str]) -> int:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench convert", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="some models")
    parser.add_argument("--peers", nargs="+", default=["all"], help="all, none, or names")
    parser.add_argument(
        "--cache", type=Path, default=CACHE / "results", help="what was done before"
    )
    parser.add_argument("--toolchain", type=Path, help="an environment with PyTorch and TensorFlow")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(argv)
    peers = {"all": list(ANCHORS), "none": []}.get(options.peers[0], options.peers)
    every = dict(tasks(options.toolchain))
    unknown = {*peers} - {*ANCHORS} | {*(options.models or ())} - {*every}
    if unknown:
        parser.error(f"not known: {', '.join(sorted(unknown))}; {', '.join((*ANCHORS, *every))}")
    kept = Kept(options.cache)
    rows: list[Row] = []
    for name in options.models or every:
        try:
            made = measure(every[name](), peers, kept, options.toolchain)
        except (Untrained, Unavailable) as error:
            made = [Row(name, "-", OURS, error=str(error))]
        keep_rows(kept, name, code_of(*OURS_IS), made)
        rows += made
    found = summary(rows)
    if options.write:
        write_page(kept, list(every), code_of(*OURS_IS))
    if options.json:
        print(json.dumps({**found, "table": [asdict(row) for row in rows]}, indent=2))
    else:
        print("\n".join([*lines(rows), json.dumps(found, indent=2)]))
    return 1 if found["budget_violations"] else 0
