"""Pruning inside a build: the float ONNX model with zeros, by a lambda or by what it may cost.

The largest lambda inside a budget is looked for by bisection over the share of weights to zero, on
one half of the held-out examples, and proven on the other, since the best of several tries looks
better than it is on what it was chosen by (`search/proving.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate, metrics
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.bench import Answers, Bench, number
from edgefleet_converter.recipe_prune import Prune
from edgefleet_converter.report import PrunedLayer, PruneReport
from edgefleet_converter.search.figures import Proof
from edgefleet_converter.search.proving import Halves, first_proven, halve

STEPS: Final = 8
"""Halvings: the share of zeros is found to 1/256."""

RUNGS: Final = 8
"""Into so many even steps that share is parted, to step back by."""

BUDGET: Final = "prune.max_accuracy_drop"


@dataclass(frozen=True, slots=True)
class PrunedModel:
    """A float ONNX model with zeros, what it says to the held-out examples, and its figures."""

    path: Path
    answers: Answers
    told: PruneReport


@dataclass(frozen=True, slots=True)
class Tried:
    """One try: the file, its lambda, how many weights are not zero, of how many, by layer."""

    path: Path
    lambda_: float
    norm0: int
    weights: int
    layers: tuple[PrunedLayer, ...]


def prune_model(
    bench: Bench, path: Path, before: Arrays, truth: NDArray[np.int64] | None
) -> PrunedModel:
    """The model pruned as the recipe says.

    Args:
        bench: its recipe has a lambda or a budget.
        path: the float ONNX model.
        before: what that says to the held-out examples.
        truth: the class of each, [N], if it is known.

    Raises:
        OperatorError: nothing can be pruned, or a budget is asked for where nothing can be counted
            or nothing is inside it.
    """
    wanted = bench.recipe.prune
    rows: NDArray[np.int64] | slice = slice(None)
    proof = None
    if wanted.max_accuracy_drop is None:
        tried = write_pruned(bench, path, lambda_=wanted.lambda_)
    else:
        halves = halve(before, truth, wanted.max_accuracy_drop, what=BUDGET)
        rows = halves.split.kept
        tried, proof = _largest(bench, path, halves)
    answers = _answers(bench, tried)
    shares = _shares(before, answers.arrays, truth, rows)
    return PrunedModel(
        tried.path, answers, PruneReport(tried.lambda_, tried.norm0, tried.weights, *shares, proof)
    )


def refuse_uncut(wish: Prune, stamp: str) -> None:
    """Refuse a model whose channels were not cut as the recipe says; `stamp` says how they were.

    Raises:
        OperatorError: saying which command does it.
    """
    wanted = wish.structured
    if wanted is not None and stamp != json.dumps(codec.encode(wanted), sort_keys=True):
        raise OperatorError(
            f"the channels of this model were cut {stamp or 'not at all'}, not as prune.structured",
            hint="edge-convert prune-channels cuts them, and writes an ONNX model to build from",
        )


def write_pruned(
    bench: Bench, path: Path, *, lambda_: float | None = None, share: float | None = None
) -> Tried:
    """A pruned copy of a float ONNX model in the scratch folder, over the one before."""
    made = bench.scratch / "pruned.onnx"
    says = bench.task(
        "prune_onnx",
        "pruning" if lambda_ is None else f"pruning with lambda {lambda_:.3g}",
        {"model.onnx": path},
        {"pruned.onnx": made},
        lambda_=lambda_,
        share=share,
    )
    return Tried(
        made,
        number(says["lambda"]),
        int(number(says["norm0"])),
        int(number(says["weights"])),
        _layers(says["layers"]),
    )


def _layers(told: Json) -> tuple[PrunedLayer, ...]:
    rows = told if isinstance(told, list) else []
    return tuple(
        PrunedLayer(str(row[0]), int(number(row[1])), int(number(row[2])))
        for row in rows
        if isinstance(row, list)
    )


def _largest(bench: Bench, path: Path, halves: Halves) -> tuple[Tried, Proof]:
    """The pruning of the largest share that is inside on one half, or the next smaller that is
    proven on the other: of eight, even steps apart."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        share = (low + high) / 2
        outputs = _answers(bench, write_pruned(bench, path, share=share)).arrays
        if halves.why_outside(halves.on_choice(outputs)):
            high = share
        else:
            low = share

    def smaller() -> Iterator[tuple[Tried, Arrays]]:
        for eighths in range(RUNGS, 0, -1) if low else ():
            tried = write_pruned(bench, path, share=low * eighths / RUNGS)
            yield tried, _answers(bench, tried).arrays

    return first_proven(smaller(), halves, what=BUDGET)


def _answers(bench: Bench, tried: Tried) -> Answers:
    answers = bench.run(Format.ONNX, tried.path, what="running the pruned model")
    gate.refuse_not_finite(answers.arrays, what="the pruned model")
    return answers


def _shares(
    before: Arrays, after: Arrays, truth: NDArray[np.int64] | None, rows: NDArray[np.int64] | slice
) -> tuple[metrics.Share | None, metrics.Share | None, metrics.Share | None]:
    """Accuracy before and after where classes are known, and agreement where there are classes."""
    mine, theirs = before[0][rows], after[0][rows]
    if truth is not None:
        return (
            metrics.accuracy(mine, truth[rows]),
            metrics.accuracy(theirs, truth[rows]),
            metrics.agreement(mine, theirs),
        )
    same = metrics.agreement(mine, theirs) if metrics.are_probabilities(mine) else None
    return None, None, same
