"""Part three of `bench prune`: what a budget of pruning is worth on examples nobody chose by.

The network at many shares of zeros has answered all held-out examples. They are parted by chance in
three, two thousand times: one third chooses, one proves, one is fresh. Counted is how often more is
lost than the budget on the fresh third, with a choice alone and with the rule of `search/proving`,
and how far over it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from bench._prune_shop import Shop
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.passes.prune_onnx import all_weights, lambda_for, prune
from edgefleet_converter.search.fidelity import Examples
from edgefleet_converter.search.proving import Halves, first_proven
from edgefleet_converter.search.split import Split

PARTINGS: Final = 2000
RUNGS: Final = 8
GRID: Final = 64
"""Shares of zeros, up to `MOST`."""
MOST: Final = 0.7
SIZES: Final = (100, 300, 1000)


@dataclass(frozen=True)
class Kept:
    """Of one budget and one size of the parts: how often the fresh part is over, and by how much.

    `alone` is a choice without a proof, `proven` the rule; `worst` are 95th percentiles of what is
    lost. `refused`: how often nothing was inside. `looks`: the mean. `covered`: how often the
    interval that is told holds what the cut loses over all examples.
    """

    most: float
    size: int
    alone: float
    proven: float
    worst_alone: float
    worst_proven: float
    zeros_alone: float
    zeros_proven: float
    looks: float
    covered: float
    refused: float


def hold_budgets(shop: Shop, whole: object, budgets: Sequence[float]) -> list[Kept]:
    """A row for each budget and each size of the parts."""
    model = onnx.load(str(whole))
    weights = all_weights(model)
    shares = [MOST * k / GRID for k in range(GRID + 1)]
    said: list[NDArray[np.generic]] = []
    for share in shares:
        path = shop.bench.scratch / "proof.onnx"
        onnx.save(prune(model, lambda_for(weights, share)).model, path)
        said.append(shop.answers(path).argmax(axis=1))
        print(f"answers at {share:.3f}", file=sys.stderr, flush=True)
    right = np.stack(said) == shop.truth
    return [_hold(right, most, size) for most in budgets for size in SIZES]


def _hold(right: NDArray[np.bool_], most: float, size: int) -> Kept:
    """`right` [shares, N]: whether the network is right at each share of zeros; the first: none."""
    rng = np.random.default_rng(7)
    lost: list[tuple[float, float]] = []
    zeros: list[tuple[float, float]] = []
    looks: list[int] = []
    covered: list[bool] = []
    refused = 0
    whole = right[0].mean() - right.mean(axis=1)
    for _ in range(PARTINGS):
        order = rng.permutation(right.shape[1])[: 3 * size]
        seen, kept, fresh = order.reshape(3, size)
        drops = right[0, seen].mean() - right[:, seen].mean(axis=1)
        inside = np.flatnonzero(drops <= most)
        halves = _halves(right, most, seen, kept)
        fall = right[0, fresh].mean() - right[:, fresh].mean(axis=1)
        best = int(inside.max())
        rungs = dict.fromkeys(round(best * k / RUNGS) for k in range(RUNGS, 0, -1))
        cuts = ((k, _scores(right[k])) for k in rungs if k)
        try:
            taken, proof = first_proven(cuts, halves, what="budget")
        except OperatorError:
            refused += 1
            continue
        looks.append(proof.looks)
        told = proof.proven.accuracy_drop
        assert told is not None
        covered.append(bool(told.low <= whole[taken] <= told.high))
        lost.append((float(fall[best]), float(fall[taken])))
        zeros.append((MOST * best / GRID, MOST * taken / GRID))
    table, cut = np.array(lost), np.array(zeros)
    over = (table > most + 1e-12).mean(axis=0)
    worst = np.quantile(table, 0.95, axis=0)
    return Kept(
        most,
        size,
        *map(float, over),
        *map(float, worst),
        *map(float, cut.mean(axis=0)),
        float(np.mean(looks)),
        float(np.mean(covered)),
        refused / PARTINGS,
    )


def _halves(
    right: NDArray[np.bool_], most: float, seen: NDArray[np.int64], kept: NDArray[np.int64]
) -> Halves:
    whole = _scores(right[0])[0]
    truth = np.zeros(len(whole), np.int64)
    parts = [Examples((whole[rows],), truth[rows], True) for rows in (seen, kept)]
    return Halves(most, Split(seen, kept), *parts)


def _scores(right: NDArray[np.bool_]) -> Arrays:
    """Answers whose class is 0 where they are right: all that counts here."""
    return (np.stack([right, ~right], axis=1).astype(np.float32),)
