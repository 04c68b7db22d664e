"""Pruning inside a build: the float ONNX model with zeros, by a lambda or by what it may cost.

The largest lambda inside a budget is looked for by bisection over the share of weights to zero.
It is chosen on every other held-out example, and the report has the figures of the rest, since the
best of several tries looks better than it is on what it was chosen by.
"""

from __future__ import annotations

import json
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

STEPS: Final = 8
"""Halvings: the share of zeros is found to 1/256."""

_ALL: Final = slice(None)
_CHOSEN_ON: Final = slice(0, None, 2)
_TOLD_OF: Final = slice(1, None, 2)


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
        OperatorError: nothing can be pruned, or a budget is asked for where nothing can be counted.
    """
    wanted = bench.recipe.prune
    if wanted.max_accuracy_drop is None:
        tried = write_pruned(bench, path, lambda_=wanted.lambda_)
        rows = _ALL
    else:
        if truth is None and not metrics.are_probabilities(before[0]):
            raise OperatorError(
                "prune.max_accuracy_drop: without classes there is no accuracy to hold it to",
                hint="an array y in the held-out data, or prune.lambda",
            )
        if len(before[0]) < 2:
            raise OperatorError("prune.max_accuracy_drop: needs two held-out examples or more")
        tried = _largest(bench, path, before, truth, wanted.max_accuracy_drop)
        rows = _TOLD_OF
    answers = _answers(bench, tried)
    shares = _shares(before, answers.arrays, truth, rows)
    return PrunedModel(
        tried.path, answers, PruneReport(tried.lambda_, tried.norm0, tried.weights, *shares)
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


def _largest(
    bench: Bench, path: Path, before: Arrays, truth: NDArray[np.int64] | None, most: float
) -> Tried:
    """The pruning of the largest share that stays within `most`; none at all always does."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        share = (low + high) / 2
        answers = _answers(bench, write_pruned(bench, path, share=share))
        shares = _shares(before, answers.arrays, truth, _CHOSEN_ON)
        if gate.accuracy_drop(*shares) <= most:
            low = share
        else:
            high = share
    return write_pruned(bench, path, share=low)


def _answers(bench: Bench, tried: Tried) -> Answers:
    answers = bench.run(Format.ONNX, tried.path, what="running the pruned model")
    gate.refuse_not_finite(answers.arrays, what="the pruned model")
    return answers


def _shares(
    before: Arrays, after: Arrays, truth: NDArray[np.int64] | None, rows: slice
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
