"""What is done to a model's file once it is judged: passes that a recipe asks for by name.

The variant's answers, golden vectors and limits are of the file before. What a pass makes is run
on the same examples, and every answer has to be the same.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays, load_tensors
from edgefleet_converter.bench import HELD_OUT, Answers, Bench, hardware_here, number
from edgefleet_converter.report import PassReport
from edgefleet_converter.targets import Target
from edgefleet_converter.weighing import WEIGHTS


@dataclass(frozen=True, slots=True)
class Finished:
    """What the passes left beside the model: files of weights, what it was optimized for, the
    runtimes that it now needs, and what they cost and brought."""

    weights: tuple[Path, ...] = ()
    optimized_for: str | None = None
    runtimes: dict[str, str] = field(default_factory=dict)
    passes: tuple[PassReport, ...] = ()


def finish_model(
    bench: Bench, target: Target, path: Path, answers: Answers | None, *, has_steps: bool
) -> Finished:
    """Run the passes of the recipe over a finished file, in place.

    Raises:
        OperatorError: a pass cannot be run here or on this file, or changed an answer.
    """
    wish = bench.recipe.optimize
    if target.kind is not Format.ONNX or target.is_as_is or answers is None:
        return Finished()
    if wish.mapped_weights and has_steps:
        raise OperatorError(
            f"optimize.mapped_weights: {target} has steps around the model",
            hint="weights are mapped for models alone; take it out of the recipe",
        )
    found = Finished()
    if wish.offline:
        if wish.offline != hardware_here():
            raise OperatorError(
                f"optimize.offline: a graph for {wish.offline} cannot be made on {hardware_here()}",
                hint="its form depends on the processor: build it on a board of that class",
            )
        made = bench.scratch / "optimized.onnx"
        says = bench.task(
            "optimize_onnx",
            f"optimizing {target} for {wish.offline}",
            {"model.onnx": path},
            {"optimized.onnx": made},
        )
        told = _compare(bench, "offline", target, (path, None), (made, None), answers)
        shutil.move(made, path)
        runtimes = {"onnxruntime": str(says["version"])}
        found = Finished((), wish.offline, runtimes, (told,))
    if wish.mapped_weights:
        made, weights = bench.scratch / "split.onnx", path.with_name(WEIGHTS)
        bench.task(
            "split_onnx",
            f"splitting {target}",
            {"model.onnx": path},
            {"split.onnx": made, "weights": weights},
            location=WEIGHTS,
        )
        is_offline = found.optimized_for is not None
        told = _compare(
            bench,
            "mapped_weights",
            target,
            (path, None),
            (made, weights),
            answers,
            is_optimized=is_offline,
        )
        shutil.move(made, path)
        found = replace(found, weights=(weights,), passes=(*found.passes, told))
    return found


def _compare(
    bench: Bench,
    name: str,
    target: Target,
    before: tuple[Path, Path | None],
    after: tuple[Path, Path | None],
    answers: Answers,
    *,
    is_optimized: bool = False,
) -> PassReport:
    """What a pass brought.

    Raises:
        OperatorError: an answer is another.
    """
    sizes = [sum(one.stat().st_size for one in pair if one) for pair in (before, after)]
    inputs = {"before.onnx": before[0], "after.onnx": after[0]}
    if after[1] is not None:
        inputs["after.weights"] = after[1]
    inputs["inputs.npz"] = bench.scratch / HELD_OUT
    outputs = {"outputs.npz": bench.scratch / "finished.npz"}
    says = bench.task(
        "weigh",
        f"trying {target} after {name}",
        inputs,
        outputs,
        plain_before=is_optimized,
        plain_after=is_optimized or name == "offline",
        enabled=bench.recipe.measure.enabled,
    )
    found = load_tensors(bench.scratch / "finished.npz", "output")
    own = load_tensors(bench.scratch / "finished.npz", "before")
    if not (_are_equal(own, found) and (_are_equal(own, answers.arrays) or answers.has_borders)):
        raise OperatorError(
            f"{target}: {name} changes what the model answers",
            hint=f"take optimize.{name} out of the recipe",
        )
    figures = {key: number(value) for key, value in says.items()}
    return PassReport(name, sizes[0], sizes[1], **figures)


def _are_equal(first: Arrays, second: Arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
