"""Points of a sweep over lambda: a float model pruned, made int8 and measured, none packed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np
from backports import zstd
from numpy.typing import NDArray

from edgefleet_contract.bundle import Format
from edgefleet_converter import gate, metrics
from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.bench import CALIBRATION, Bench
from edgefleet_converter.examples import width
from edgefleet_converter.loss import cross_entropy
from edgefleet_converter.pruning import write_pruned
from edgefleet_converter.report import LambdaSweep, Point

POINTS: Final = 12
ZSTD_LEVEL: Final = 19


def sweep_for_report(
    bench: Bench, path: Path, reference: Array, truth: NDArray[np.int64] | None
) -> LambdaSweep | None:
    """A sweep of the float model, until the report's time is up; None where nobody asks."""
    wish = bench.recipe.report
    if not wish.lambda_sweep:
        return None
    until = time.monotonic() + wish.time_limit_s
    grid = choose_grid(bench, path)
    points: list[Point] = []
    for lambda_ in grid:
        if points and time.monotonic() >= until:
            break
        points.append(make_point(bench, path, lambda_, reference, truth)[0])
    return LambdaSweep(len(points) == len(grid), tuple(points))


def choose_grid(bench: Bench, path: Path) -> list[float]:
    """Lambdas that share out what there is to see: 0, and rising up to where no weight is left."""
    says = bench.task("choose_lambdas", "choosing lambdas", {"model.onnx": path}, {}, points=POINTS)
    found = says["lambdas"]
    assert isinstance(found, list)
    return [float(one) for one in found if isinstance(one, int | float)]


def make_point(
    bench: Bench, path: Path, lambda_: float, reference: Array, truth: NDArray[np.int64] | None
) -> tuple[Point, Arrays]:
    """A float ONNX model pruned by a lambda, made int8 and measured; and what that says.

    Args:
        bench: does the work; its scratch folder has the calibration data.
        path: the float model.
        lambda_: 0 or more.
        reference: what the float model that came in says to the held-out examples.
        truth: the class of each, [N], if it is known.

    Raises:
        OperatorError: a step failed, or the answers are not finite.
    """
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
    point = Point(
        lambda_=lambda_,
        norm0=tried.norm0,
        weights=tried.weights,
        sqnr_db=metrics.sqnr_db(reference, own),
        size=len(raw),
        size_zstd=len(zstd.compress(raw, ZSTD_LEVEL)),
        loss=loss_of(own, truth),
        accuracy=None if truth is None else metrics.accuracy(own, truth),
        agreement=metrics.agreement(reference, own) if has_classes else None,
        measured=bench.measure(Format.ONNX, made, what=f"measuring at {at}"),
        layers=tried.layers,
    )
    return point, answers.arrays


def loss_of(outputs: Array, truth: NDArray[np.int64] | None) -> float | None:
    """Cross-entropy, where there is one score a class."""
    if truth is None or int(truth.max()) >= max(2, width(outputs)):
        return None
    return cross_entropy(outputs, truth)
