"""What pruning costs and saves over lambda: each model pruned, made int8 and measured, none packed.

The figures are of held-out data, for a person to choose a lambda by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgefleet_contract.bundle import Format, sha256
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import metrics
from edgefleet_converter.bench import Bench, Progress
from edgefleet_converter.labels import find_labels
from edgefleet_converter.lambda_points import choose_grid, loss_of, make_point
from edgefleet_converter.metrics import Share
from edgefleet_converter.opening import open_source
from edgefleet_converter.pruning import BUDGET
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.recipe_prune import Prune
from edgefleet_converter.report import DataFile, Point
from edgefleet_converter.scratch import scratch
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.figures import Proof
from edgefleet_converter.search.proving import first_proven, halve
from edgefleet_converter.targets import Target


@dataclass(frozen=True, slots=True)
class Sweep:
    """All points, by rising lambda, and the float model that they are of.

    Where the recipe says what pruning may cost, `chosen` is the largest lambda whose int8 file is
    inside, with its `proof`, or `none_inside` says why there is none.
    """

    source: DataFile
    size: int
    points: tuple[Point, ...]
    loss: float | None = None
    accuracy: Share | None = None
    chosen: float | None = None
    proof: Proof | None = None
    none_inside: str = ""


def sweep(
    source: Path,
    recipe: Recipe,
    *,
    lambdas: Sequence[float] = (),
    trust_pickle: bool = False,
    toolchain: Path | None = None,
    cache: Cache | None = None,
    progress: Progress = lambda _: None,
) -> Sweep:
    """A model at each lambda, by default at 0 and at eleven up to where no weight is left.

    Args:
        source: a model file that int8 ONNX can be made of.
        recipe: its data, limits and settings, and `prune.max_accuracy_drop`; targets, steps behind
            the model and all else of budgets and pruning do not matter here.
        lambdas: 0 or more each.
        trust_pickle: as for `build`.
        toolchain: as for `build`.
        cache: of results, from which a sweep resumes; by default nothing is kept.
        progress: told what is being done.

    Raises:
        OperatorError: the model or the data cannot be used, or a lambda is none.
    """
    if not recipe.data.calibration:
        raise OperatorError(
            "field 'data.calibration' is missing, and every point is quantized to int8"
        )
    if not all(0 <= one < math.inf for one in lambdas):
        raise OperatorError("lambdas: 0 or more each")
    wanted = replace(
        recipe, targets=(Target.ONNX_INT8,), prune=Prune(), state={}, hidden_state=False
    )
    with scratch() as place:
        bench = Bench(wanted, place, progress, toolchain, cache or Cache(None))
        opened = open_source(bench, source, trust_pickle=trust_pickle)
        if Format.ONNX not in opened.models:
            raise OperatorError(
                f"{source} is a TFLite model, which is not pruned",
                hint="prune the model that it was made of: ONNX or scikit-learn",
            )
        base = opened.models[Format.ONNX]
        assert base.answers is not None  # it is not stateful
        assert opened.answers is not None
        labels = find_labels(wanted, opened.named, opened.answers)
        truth = opened.held_out.classes(labels, opened.answers)
        grid = sorted(set(lambdas)) or choose_grid(bench, base.path)
        made = [make_point(bench, base.path, one, opened.answers, truth) for one in grid]
        raw = source.read_bytes()
        found = Sweep(
            DataFile(sha256(raw), len(raw)),
            base.path.stat().st_size,
            tuple(point for point, _ in made),
            loss_of(opened.answers, truth),
            None if truth is None else metrics.accuracy(opened.answers, truth),
        )
        most = recipe.prune.max_accuracy_drop
        if most is None:
            return found
        halves = halve(base.answers.arrays, truth, most, what=BUDGET)
        cuts = ((point.lambda_, outputs) for point, outputs in reversed(made))
        try:
            chosen, proof = first_proven(cuts, halves, what=BUDGET)
        except OperatorError as error:
            return replace(found, none_inside=error.message)
        return replace(found, chosen=chosen, proof=proof)
