from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from edgefleet_converter.loss import LEAST, cross_entropy

rng = np.random.default_rng(3)
SCORES = rng.normal(size=(50, 7)).astype(np.float32) * 3
TRUTH = rng.integers(0, 7, size=50)


def test_scores_go_through_a_softmax() -> None:
    expected = -log_softmax(SCORES.astype(np.float64), axis=1)[np.arange(50), TRUTH].mean()
    assert cross_entropy(SCORES, TRUTH) == pytest.approx(expected)


def test_probabilities_are_taken_as_they_are() -> None:
    shares = np.exp(log_softmax(SCORES.astype(np.float64), axis=1))
    expected = log_loss(TRUTH, shares, labels=range(7))
    assert cross_entropy(shares, TRUTH) == pytest.approx(expected)


@pytest.mark.parametrize("is_probability", [True, False])
def test_one_score_is_that_of_the_second_class(is_probability: bool) -> None:
    score, truth = SCORES[:, :1].astype(np.float64), TRUTH % 2
    share = 1 / (1 + np.exp(-score))
    expected = log_loss(truth, share[:, 0])
    assert cross_entropy(share if is_probability else score, truth) == pytest.approx(expected)


def test_a_probability_that_was_rounded_to_zero_costs_a_finite_loss() -> None:
    assert cross_entropy(np.asarray([[1.0, 0.0]]), np.asarray([1])) == -np.log(LEAST)
