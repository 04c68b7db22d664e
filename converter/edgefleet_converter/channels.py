"""Structured pruning, measured: a PyTorch factory in; a smaller ONNX model and its figures out.

The model is cut and trained in the toolchain. Both it and the whole one are made int8 here and
measured in one run, so that speeds compare. The file that comes out is a source of `build`.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate, metrics
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Bench, Progress
from edgefleet_converter.feeding import lay_out, load_data
from edgefleet_converter.isolation import run_task
from edgefleet_converter.labels import find_labels
from edgefleet_converter.metrics import Share
from edgefleet_converter.opening import open_source
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.recipe_prune import Prune
from edgefleet_converter.report import Measured
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.targets import Target
from edgefleet_converter.toolchain import python_of


@dataclass(frozen=True, slots=True)
class Row:
    """One file. `agreement` is with the decisions of the float model that came in."""

    name: str
    size: int
    accuracy: Share | None = None
    agreement: Share | None = None
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class Channels:
    """What cutting did: parameters and multiply-adds of one example, and four files, measured."""

    path: str
    parameters_before: int
    parameters_after: int
    multiply_adds_before: int
    multiply_adds_after: int
    rows: tuple[Row, ...]


def prune_channels(
    factory: str,
    recipe: Recipe,
    *,
    out: Path,
    toolchain: Path | None = None,
    search: Path | None = None,
    cache: Cache | None = None,
    progress: Progress = lambda _: None,
) -> Channels:
    """The ONNX model in `out` with fewer channels, as `prune.structured` of the recipe says.

    Args:
        factory: `module:function` that gives the trained module.
        recipe: its data, limits and settings; targets and budgets do not matter here.
        out: the ONNX file to write; it must not exist.
        toolchain: an environment with PyTorch and torch-pruning, where ours has none.
        search: the folder that modules are imported from; the working directory by default.
        cache: of results of what comes after the training; by default nothing is kept.
        progress: told what is being done.

    Raises:
        OperatorError: the recipe has no such table, the model or the data cannot be used, a
            function of the user failed.
    """
    wish = recipe.prune.structured
    if wish is None:
        raise OperatorError("the recipe has no [prune.structured]", hint="ratio, steps, finetune")
    if not recipe.data.calibration:
        raise OperatorError("field 'data.calibration' is missing, and int8 needs it")
    if out.exists():
        raise OperatorError(f"{out} exists already")
    wanted = replace(recipe, targets=(Target.ONNX_INT8,), prune=Prune())
    with tempfile.TemporaryDirectory(prefix="edge-convert-") as name:
        scratch = Path(name)
        bench = Bench(wanted, scratch, progress, cache=cache or Cache(None))
        held_out = load_data(wanted)[1]
        count = len(held_out.names)
        inputs = ("input",) if count == 1 else held_out.names
        lay_out(bench, None, held_out, inputs)
        progress("cutting channels and training")
        says = run_task(
            "torch_prune",
            what="cutting channels",
            limits=wanted.worker,
            inputs={"inputs.npz": scratch / HELD_OUT},
            outputs={"whole.onnx": scratch / "whole.onnx", "cut.onnx": scratch / "cut.onnx"},
            params={
                "factory": factory,
                "search": str((search or Path.cwd()).absolute()),
                "finetune": wish.finetune,
                "ratio": wish.ratio,
                "steps": wish.steps,
                "round_to": wish.round_to,
            },
            python=python_of(toolchain),
        )
        rows = _rows(bench, scratch)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(scratch / "cut.onnx", out)
    before, after = _counts(says["before"]), _counts(says["after"])
    return Channels(
        str(out),
        before["parameters"],
        after["parameters"],
        before["multiply_adds"],
        after["multiply_adds"],
        rows,
    )


def _rows(bench: Bench, scratch: Path) -> tuple[Row, ...]:
    """The whole and the cut model, each as float and int8."""
    rows: list[Row] = []
    reference = truth = None
    for name in ("whole", "cut"):
        opened = open_source(bench, scratch / f"{name}.onnx", trust_pickle=False)
        base = opened.models[Format.ONNX]
        assert base.answers is not None  # it is not stateful
        if reference is None:
            reference = base.answers.arrays[0]
            labels = find_labels(bench.recipe, opened.named, reference)
            truth = opened.held_out.classes(labels, reference)
        made = scratch / "int8.onnx"
        bench.task(
            "quantize_onnx",
            f"quantizing the {name} model",
            {"model.onnx": base.path, "calibration.npz": bench.scratch / CALIBRATION},
            {"int8.onnx": made},
        )
        for precision, path in (("float32", base.path), ("int8", made)):
            what = f"the {name} model, {precision}"
            answers = bench.run(Format.ONNX, path, what=f"running {what}").arrays
            gate.refuse_not_finite(answers, what=what)
            rows.append(
                Row(
                    f"{name} {precision}",
                    path.stat().st_size,
                    None if truth is None else metrics.accuracy(answers[0], truth),
                    metrics.agreement(reference, answers[0]),
                    bench.measure(Format.ONNX, path, what=f"measuring {what}"),
                )
            )
    return tuple(rows)


def _counts(value: Json) -> dict[str, int]:
    found = value if isinstance(value, dict) else {}
    return {name: int(one) for name, one in found.items() if isinstance(one, int)}
