"""Scores to decisions: closed formulas, and labels that cannot be the wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefleet_contract.errors import Malformed
from edgefleet_processing import StepFailed
from tests.processing.steps import many, one, ready

LABELS = "cat\ndog\nemu\ngnu été\n".encode()
SCORES = arrays.arrays(np.float32, (3, 4), elements=st.floats(-200, 200, width=32))
TIES = arrays.arrays(np.float32, (3, 4), elements=st.sampled_from([0.0, 1.0, 2.0, -np.inf]))


@given(SCORES)
@settings(deadline=None)
def test_softmax_is_scipys(x: np.ndarray) -> None:
    special = pytest.importorskip("scipy.special")
    found = one("softmax", x)
    assert found.dtype == np.float32
    assert np.allclose(found, special.softmax(x.astype(np.float64), axis=-1), atol=1e-6)
    assert np.allclose(found.sum(-1), 1, atol=1e-5)


@given(SCORES)
@settings(deadline=None)
def test_sigmoid_is_scipys_and_never_overflows(x: np.ndarray) -> None:
    special = pytest.importorskip("scipy.special")
    assert np.allclose(one("sigmoid", x * 1e6), special.expit(x.astype(np.float64) * 1e6))
    assert np.allclose(one("sigmoid", x), special.expit(x.astype(np.float64)), atol=1e-6)


def test_integers_have_a_softmax_too() -> None:
    assert np.allclose(one("softmax", np.int8([[0, 0]])), 0.5)


@given(TIES)
@settings(deadline=None)
def test_argmax_is_the_first_of_the_largest(x: np.ndarray) -> None:
    found = one("argmax", x)
    assert found.dtype == np.int64
    assert found.tolist() == [row.index(max(row)) for row in x.tolist()]


@given(TIES, st.integers(1, 4))
@settings(deadline=None)
def test_the_largest_come_first_and_of_equals_the_first(x: np.ndarray, k: int) -> None:
    names = LABELS.decode().split("\n")
    labels, scores, places = many("top_k", x, raw=LABELS, k=k)
    for row in range(3):
        wanted = sorted(range(4), key=lambda i: (-x[row, i], i))[:k]
        assert places[row].tolist() == wanted
        assert scores[row].tolist() == x[row, wanted].tolist()
        assert labels[row].tolist() == [names[i] for i in wanted]
    assert (labels.dtype, scores.dtype, places.dtype) == (object, np.float32, np.int64)


def test_without_labels_there_are_scores_and_places() -> None:
    scores, places = many("top_k", np.float32([[1, np.nan, 3]]), gives=2, k=3)
    assert scores[0, :2].tolist() == [3, 1]
    assert places.tolist() == [[2, 0, 1]]
    with pytest.raises(StepFailed, match="gave 2 tensors, not 3"):
        many("top_k", np.float32([[1, 2, 3]]), gives=3, k=1)


@pytest.mark.parametrize("classes", [3, 5])
def test_labels_of_another_number_than_the_scores_are_refused(classes: int) -> None:
    with pytest.raises(StepFailed, match="has 4 labels, got scores of"):
        many("top_k", np.zeros((1, classes), np.float32), raw=LABELS, k=1)


def test_classes_are_named() -> None:
    found = one("labels", np.array([[3, 0], [-1, 2]]), raw=LABELS, count=4)
    assert found.tolist() == [["gnu été", "cat"], ["", "emu"]]
    for wrong in (4, -2):
        with pytest.raises(StepFailed, match="has 4 labels, got classes"):
            one("labels", np.array([wrong]), raw=LABELS, count=4)
    with pytest.raises(Malformed, match="has 4 labels for 5 classes"):
        ready("labels", raw=LABELS, count=5)


def test_a_threshold_is_reached_from_below() -> None:
    x = np.float32([[0.1, 0.5, np.nextafter(np.float32(0.5), np.float32(0)), np.nan]])
    found = one("threshold", x, at="0.5")
    assert found.tolist() == [[False, True, False, False]]
    assert one("threshold", np.float32([[0.1]]), at="0.1").all()


@given(SCORES, SCORES)
@settings(deadline=None)
def test_a_weighted_mean_is_numpys_average(x: np.ndarray, y: np.ndarray) -> None:
    found = one("weighted_mean", x, y, weights=["3", "1/2"])
    wanted = np.average([x, y], axis=0, weights=[3, 0.5])
    assert np.allclose(found, wanted, atol=1e-4)
    assert np.allclose(one("weighted_mean", x, y, x), np.mean([x, y, x], axis=0), atol=1e-4)


def test_scores_of_other_shapes_are_not_averaged() -> None:
    x, y = np.zeros((1, 3), np.float32), np.zeros((1, 1), np.float32)
    with pytest.raises(StepFailed, match="of one shape"):
        one("weighted_mean", x, y)
    with pytest.raises(StepFailed, match="has 3 weights, takes 2 tensors"):
        one("weighted_mean", x, x, weights=["1", "1", "1"])


@pytest.mark.parametrize(
    ("op", "wrong"),
    [
        ("softmax", {"axis": 0}),
        ("argmax", {"axis": 9}),
        ("top_k", {"k": 0}),
        ("top_k", {"k": 5000}),
        ("threshold", {"at": "half"}),
        ("weighted_mean", {"weights": ["0"]}),
        ("sigmoid", {"axis": 1}),
    ],
)
def test_settings_that_are_wrong_are_refused(op: str, wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed, match=rf"node 0 \({op}\)"):
        ready(op, **wrong)


@pytest.mark.parametrize("op", ["softmax", "argmax"])
def test_no_classes_and_no_axis_are_refused(op: str) -> None:
    for wrong in (np.zeros((2, 0), np.float32), np.zeros(2, np.float32)):
        with pytest.raises(StepFailed, match="has no"):
            one(op, wrong)
    more_labels = b"a\nb\n"
    with pytest.raises(Malformed, match="has 2 labels, and k is 3"):
        ready("top_k", raw=more_labels, k=3)
