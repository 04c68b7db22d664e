"""What pruning costs and saves over lambda: each model pruned, made int8 and measured, none packed.

The figures are of held-out data, for a person to choose a lambda by.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from backports import zstd
from numpy.typing import NDArray

from edgefleet_contract.bundle import Format, sha256
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate, metrics
from edgefleet_converter.arrays import Array
from edgefleet_converter.bench import CALIBRATION, Bench, Progress
from edgefleet_converter.examples import width
from edgefleet_converter.labels import find_labels
from edgefleet_converter.loss import cross_entropy
from edgefleet_converter.metrics import Share
from edgefleet_converter.opening import open_source
from edgefleet_converter.pruning import Layer, write_pruned
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.recipe_prune import Prune
from edgefleet_converter.report import DataFile, Measured
from edgefleet_converter.targets import Target

POINTS: Final = 12
ZSTD_LEVEL: Final = 19


@dataclass(frozen=True, slots=True)
class Point:
    """An int8 model of one lambda. `loss`: cross-entropy, nats, where classes are known.

    `norm0` of `weights` are not zero, by layer in `layers`. `agreement` and `sqnr_db` are against
    the float model that came in, `size_zstd` is the file at level 19.
    """

    lambda_: float
    norm0: int
    weights: int
    sqnr_db: float
    size: int
    size_zstd: int
    loss: float | None = None
    accuracy: Share | None = None
    agreement: Share | None = None
    measured: Measured | None = None
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True, slots=True)
class Sweep:
    """All points, by rising lambda, and the float model that they are of."""

    source: DataFile
    size: int
    points: tuple[Point, ...]
    loss: float | None = None
    accuracy: Share | None = None


def sweep(
    source: Path,
    recipe: Recipe,
    *,
    lambdas: Sequence[float] = (),
    trust_pickle: bool = False,
    progress: Progress = lambda _: None,
) -> Sweep:
    """A model at each lambda, by default at 0 and at eleven up to where no weight is left.

    Args:
        source: a model file that int8 ONNX can be made of.
        recipe: its data, limits and settings; targets, steps behind the model and budgets do not
            matter here.
        lambdas: 0 or more each.
        trust_pickle: as for `build`.
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
    with tempfile.TemporaryDirectory(prefix="edge-convert-") as scratch:
        bench = Bench(wanted, Path(scratch), progress)
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
        grid = sorted(set(lambdas)) or _grid(bench, base.path)
        points = tuple(_point(bench, base.path, one, opened.answers, truth) for one in grid)
        raw = source.read_bytes()
        return Sweep(
            DataFile(sha256(raw), len(raw)),
            base.path.stat().st_size,
            points,
            _loss(opened.answers, truth),
            None if truth is None else metrics.accuracy(opened.answers, truth),
        )


def _grid(bench: Bench, path: Path) -> list[float]:
    says = bench.task("choose_lambdas", "choosing lambdas", {"model.onnx": path}, {}, points=POINTS)
    found = says["lambdas"]
    assert isinstance(found, list)
    return [float(one) for one in found if isinstance(one, int | float)]


def _point(
    bench: Bench, path: Path, lambda_: float, reference: Array, truth: NDArray[np.int64] | None
) -> Point:
    tried = write_pruned(bench, path, lambda_=lambda_)
    made = bench.scratch / "int8.onnx"
    at = f"lambda {lambda_:.3g}"
    bench.task(
        "quantize_onnx",
        f"quantizing at {at}",
        {"model.onnx": tried.path, "calibration.npz": bench.scratch / CALIBRATION},
        {"int8.onnx": made},
    )
    answers = bench.run(Format.ONNX, made, what=f"running at {at}")
    gate.refuse_not_finite(answers.arrays, what=f"the model at {at}")
    own = answers.arrays[0]
    raw = made.read_bytes()
    has_classes = truth is not None or metrics.are_probabilities(reference)
    return Point(
        lambda_=lambda_,
        norm0=tried.norm0,
        weights=tried.weights,
        sqnr_db=metrics.sqnr_db(reference, own),
        size=len(raw),
        size_zstd=len(zstd.compress(raw, ZSTD_LEVEL)),
        loss=_loss(own, truth),
        accuracy=None if truth is None else metrics.accuracy(own, truth),
        agreement=metrics.agreement(reference, own) if has_classes else None,
        measured=bench.measure(Format.ONNX, made, what=f"measuring at {at}"),
        layers=tried.layers,
    )


def _loss(outputs: Array, truth: NDArray[np.int64] | None) -> float | None:
    """Cross-entropy, where there is one score a class."""
    if truth is None or int(truth.max()) >= max(2, width(outputs)):
        return None
    return cross_entropy(outputs, truth)
