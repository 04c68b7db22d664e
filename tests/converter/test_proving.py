"""Budgets of pruning: chosen on one half of the examples, proven on the other [recipe-19]."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import metrics, proof_words
from edgefleet_converter.proof_words import proof_in_words
from edgefleet_converter.search.figures import paired_drop
from edgefleet_converter.search.proving import Halves, first_proven, halve
from edgefleet_converter.search.split import part

N = 400
TRUTH = np.arange(N) % 4


def answers(wrong: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
    """Probabilities that are right but for the rows `wrong`."""
    said = TRUTH.copy()
    said[wrong] = (said[wrong] + 1) % 4
    return (np.eye(4, dtype=np.float32)[said],)


def halves(most: float, *, truth: bool = True) -> Halves:
    return halve(answers(np.array([], int)), TRUTH if truth else None, most, what="prune.x")


def cut(found: Halves, seen: int, kept: int) -> Any:
    """Answers that are wrong for so many examples of the half that chooses, and of the other."""
    return answers(np.concatenate([found.split.seen[:seen], found.split.kept[:kept]]))


@pytest.mark.parametrize("truth", [True, False])
def test_a_cut_that_is_over_on_the_other_half_is_followed_by_a_smaller_one(truth: bool) -> None:
    found = halves(0.021, truth=truth)  # four of two hundred
    made: list[int] = []

    def cuts() -> Iterator[tuple[int, Any]]:
        for name, seen, kept in ((8, 4, 9), (7, 6, 0), (6, 3, 5), (5, 3, 4), (4, 0, 0)):
            made.append(name)
            yield name, cut(found, seen, kept)

    name, proof = first_proven(cuts(), found, what="prune.x")
    assert name == 5
    assert made == [8, 7, 6, 5]  # no more are made than are needed
    assert proof.looks == 3  # 7 was over where it is chosen: nobody looked at the other half
    assert (proof.choice_examples, proof.proof_examples) == (200, 200)
    told = proof_in_words(codec.encode(proof))
    assert "2.10 points are allowed" in told
    assert "2.00 are lost" in told
    assert "95 % over 3 looks; larger cuts were over: 2" in told


def test_nothing_that_holds_is_said_with_what_the_smallest_cost() -> None:
    found = halves(0.0)
    with pytest.raises(OperatorError, match=r"prune\.x: nothing is inside 0\.00 points") as caught:
        first_proven(iter([(2, cut(found, 0, 9)), (1, cut(found, 0, 3))]), found, what="prune.x")
    assert "did not see: accuracy drops by 1.50 points" in caught.value.message
    with pytest.raises(OperatorError, match=r"that it is chosen by: accuracy drops by 0\.50"):
        first_proven(iter([(1, cut(found, 1, 0))]), found, what="prune.x")
    with pytest.raises(OperatorError, match="be it cut ever so little"):
        first_proven(iter([]), found, what="prune.x")


def test_what_a_search_keeps_back_no_choice_of_pruning_sees() -> None:
    assert set(part(N, 0.3).kept) < set(halves(0.0).split.kept)
    assert set(halves(0.0).split.kept).isdisjoint(halves(0.0).split.seen)


def test_budgets_need_examples_and_classes() -> None:
    with pytest.raises(OperatorError, match=r"prune\.x needs 20 held-out examples, there are 19"):
        halve(tuple(a[:19] for a in answers(np.array([], int))), TRUTH[:19], 0.1, what="prune.x")
    with pytest.raises(OperatorError, match="without classes"):
        halve((np.ones((40, 3), np.float32),), None, 0.1, what="prune.x")


def test_intervals_get_wider_with_each_look() -> None:
    before, after = np.ones(100, bool), np.arange(100) >= 3
    wide = [paired_drop(before, after, look=k) for k in range(5)]
    assert all(a.low > b.low and a.high < b.high for a, b in pairwise(wide))
    assert {one.value for one in wide} == {0.03}


@given(st.integers(1, 50))
def test_all_looks_together_may_err_by_five_percent(count: int) -> None:
    errs = [2 * (1 - metrics.NormalDist().cdf(metrics.z_of(k))) for k in range(1, count + 1)]
    assert sum(errs) == pytest.approx(0.05 * count / (count + 1), rel=1e-6)


@pytest.mark.parametrize(
    "proof",
    [None, [], {}, {"proven": 1}, {"proven": {"accuracy_drop": {"value": 1}}, "looks": "2"}],
)
def test_a_proof_without_figures_says_nothing(proof: Any) -> None:
    assert proof_in_words(proof) == ""


def test_the_examples_in_docstrings_are_so() -> None:
    assert doctest.testmod(metrics).failed == 0
    assert doctest.testmod(proof_words).failed == 0
