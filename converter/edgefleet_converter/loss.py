"""The loss of a classifier on examples whose classes are known. Pure NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefleet_converter.metrics import are_probabilities

LEAST = 1e-7
"""The least probability that is counted, so that one rounded to 0 does not cost infinity."""


def cross_entropy(outputs: NDArray[np.generic], truth: NDArray[np.int64]) -> float:
    """The mean of `-ln p[truth]`, nats.

    `outputs` [N, C] are probabilities where every row is a distribution, else scores of which a
    softmax makes one; a single column [N, 1] is the probability of class 1 where all are within
    0 to 1, else its score (the logit).

    >>> round(cross_entropy(np.asarray([[0.9, 0.1], [0.5, 0.5]]), np.asarray([0, 1])), 4)
    0.3993
    """
    scores = outputs.reshape(len(outputs), -1).astype(np.float64)
    is_probability = are_probabilities(scores)
    if scores.shape[1] == 1:
        is_probability = bool(((scores >= 0) & (scores <= 1)).all())
        scores = np.hstack([1 - scores if is_probability else np.zeros_like(scores), scores])
    probabilities = scores if is_probability else _softmax(scores)
    own = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(own, LEAST, 1.0)).mean())


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)
