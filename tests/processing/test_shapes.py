"""Joining, parting and renaming axes: NumPy's meaning, and never the batch's axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_processing import StepFailed
from tests.processing.steps import many, one, ready, text

X = np.arange(24).reshape(2, 3, 4)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.sampled_from([1, -1]))
@settings(deadline=None)
def test_what_is_parted_is_joined_again(sizes: list[int], axis: int) -> None:
    x = np.arange(2 * sum(sizes)).reshape(2, sum(sizes))
    parts = many("split", x, gives=len(sizes), sizes=sizes, axis=axis)
    assert [part.shape for part in parts] == [(2, size) for size in sizes]
    assert np.array_equal(one("concat", *parts, axis=axis), x)


def test_text_is_joined_too() -> None:
    x = text("a", "b").reshape(2, 1)
    assert one("concat", x, x).tolist() == [["a", "a"], ["b", "b"]]


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [([12], (2, 12)), ([-1], (2, 12)), ([2, -1, 3], (2, 2, 2, 3)), ([4, 3], (2, 4, 3))],
)
def test_what_follows_the_batch_axis_is_reshaped(shape: list[int], wanted: tuple[int, ...]) -> None:
    found = one("reshape", X, shape=shape)
    assert found.shape == wanted
    assert np.array_equal(found.ravel(), X.ravel())


def test_axes_of_size_1_come_and_go() -> None:
    assert one("expand", X, axis=1).shape == (2, 1, 3, 4)
    assert one("expand", X, axis=-1).shape == (2, 3, 4, 1)
    assert one("squeeze", X[:, :1, :, None], axes=[1, -1]).shape == (2, 4)
    assert one("squeeze", X[:1, :1], axes=[1]).shape == (1, 4)  # the batch of one stays


@pytest.mark.parametrize(
    ("op", "more", "says"),
    [
        ("reshape", {"shape": [5]}, "cannot shape"),
        ("reshape", {"shape": [5, -1]}, "cannot shape"),
        ("reshape", {"shape": [0, -1]}, "cannot shape"),
        ("reshape", {"shape": []}, "cannot shape"),
        ("squeeze", {"axes": [1]}, "cannot squeeze"),
        ("squeeze", {"axes": [-3]}, "has no axis"),
        ("expand", {"axis": 4}, "cannot put axis"),
        ("expand", {"axis": -4}, "cannot put axis"),
        ("split", {"sizes": [1, 2]}, "cannot part"),
        ("concat", {"axis": 3}, "has no axis"),
    ],
)
def test_what_does_not_fit_is_refused(op: str, more: dict[str, object], says: str) -> None:
    with pytest.raises(StepFailed, match=says):
        one(op, X, **more)


def test_only_what_fits_together_is_joined() -> None:
    for other in (X[:1], X[:, :, :2], X.astype(np.float32), X[:, 0]):
        with pytest.raises(StepFailed, match="cannot join"):
            one("concat", X, other, axis=1)


@pytest.mark.parametrize(
    ("op", "wrong"),
    [
        ("concat", {"axis": 0}),
        ("split", {"sizes": [], "axis": 1}),
        ("split", {"sizes": [-1], "axis": 1}),
        ("split", {"sizes": [1], "axis": 0}),
        ("reshape", {"shape": [-1, -1]}),
        ("reshape", {"shape": [-2]}),
        ("reshape", {"shape": [1] * 8}),
        ("squeeze", {"axes": [0]}),
        ("squeeze", {"axes": []}),
        ("expand", {"axis": 0}),
    ],
)
def test_settings_that_are_wrong_are_refused(op: str, wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed, match=rf"node 0 \({op}\)"):
        ready(op, **wrong)
