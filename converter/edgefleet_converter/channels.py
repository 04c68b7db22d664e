"""Structured pruning, measured: a PyTorch factory in; a smaller ONNX model and its figures out.

The model is cut and trained in the toolchain. Both it and the whole one are made int8 here and
measured in one run, so that speeds compare. The file that comes out is a source of `build`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate, metrics
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Bench, Progress
from edgefleet_converter.examples import Examples
from edgefleet_converter.feeding import lay_out, load_data
from edgefleet_converter.isolation import run_task
from edgefleet_converter.labels import find_labels
from edgefleet_converter.metrics import Share
from edgefleet_converter.opening import open_source
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.recipe_prune import Prune
from edgefleet_converter.report import Measured
from edgefleet_converter.scratch import scratch, write_whole
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.figures import Proof
from edgefleet_converter.search.proving import first_proven, halve
from edgefleet_converter.targets import Target
from edgefleet_converter.toolchain import python_of

_BUDGET: Final = "prune.structured.max_accuracy_drop"
_PARAMS: Final = ("finetune", "ratio", "steps", "round_to", "max_accuracy_drop")


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
    """What cutting did: parameters and multiply-adds of one example, and four files, measured.

    `steps` of `of_steps` were taken; where the recipe has a budget, as many as it allows, with the
    `proof`.
    """

    path: str
    parameters_before: int
    parameters_after: int
    multiply_adds_before: int
    multiply_adds_after: int
    rows: tuple[Row, ...]
    steps: int = 0
    of_steps: int = 0
    proof: Proof | None = None


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
    with scratch() as place:
        bench = Bench(wanted, place, progress, cache=cache or Cache(None))
        held_out = load_data(wanted)[1]
        count = len(held_out.names)
        inputs = ("input",) if count == 1 else held_out.names
        lay_out(bench, None, held_out, inputs)
        progress("cutting channels and training")
        has_budget = wish.max_accuracy_drop is not None
        names = [f"cut.{i + 1}.onnx" for i in range(wish.steps)] if has_budget else ["cut.onnx"]
        says = run_task(
            "torch_prune",
            what="cutting channels",
            limits=wanted.worker,
            inputs={"inputs.npz": place / HELD_OUT},
            outputs={name: place / name for name in ("whole.onnx", *names)},
            params={
                "factory": factory,
                "search": str((search or Path.cwd()).absolute()),
                **{name: getattr(wish, name) for name in _PARAMS},
            },
            python=python_of(toolchain),
        )
        sizes = says["after"] if isinstance(says["after"], list) else []
        taken, proof = len(names), None
        if wish.max_accuracy_drop is not None:
            taken, proof = _most_steps(bench, held_out, place, names, wish.max_accuracy_drop)
        made = place / names[taken - 1]
        rows = _rows(bench, {"whole": place / "whole.onnx", "cut": made})
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(out, made.read_bytes())
        except OSError as error:
            raise OperatorError(f"cannot write {out}: {error.strerror}") from None
    before, after = _counts(says["before"]), _counts(sizes[taken - 1])
    return Channels(
        str(out),
        before["parameters"],
        after["parameters"],
        before["multiply_adds"],
        after["multiply_adds"],
        rows,
        taken if has_budget else wish.steps,
        wish.steps,
        proof,
    )


def _most_steps(
    bench: Bench, held_out: Examples, folder: Path, names: list[str], most: float
) -> tuple[int, Proof]:
    """How many of the steps, whose models are in `names`, cost no more than `most`."""
    reference = bench.run(Format.ONNX, folder / "whole.onnx", what="running the whole model").arrays
    truth = held_out.classes(find_labels(bench.recipe, (), reference[0]), reference[0])
    halves = halve(reference, truth, most, what=_BUDGET)

    def fewer() -> Iterator[tuple[int, Arrays]]:
        for steps in range(len(names), 0, -1):
            what = f"the model after step {steps}"
            found = bench.run(Format.ONNX, folder / names[steps - 1], what=f"running {what}")
            gate.refuse_not_finite(found.arrays, what=what)
            yield steps, found.arrays

    return first_proven(fewer(), halves, what=_BUDGET)


def _rows(bench: Bench, paths: dict[str, Path]) -> tuple[Row, ...]:
    """The whole and the cut model, each as float and int8."""
    rows: list[Row] = []
    reference = truth = None
    for name, source in paths.items():
        opened = open_source(bench, source, trust_pickle=False)
        base = opened.models[Format.ONNX]
        assert base.answers is not None  # it is not stateful
        if reference is None:
            reference = base.answers.arrays[0]
            labels = find_labels(bench.recipe, opened.named, reference)
            truth = opened.held_out.classes(labels, reference)
        made = bench.scratch / "int8.onnx"
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
