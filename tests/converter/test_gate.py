from __future__ import annotations

import numpy as np
import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate
from edgefleet_converter.metrics import wilson
from edgefleet_converter.recipe import Budget


def test_nan_is_refused_with_the_example_that_shows_it() -> None:
    outputs = np.ones((4, 2), np.float32)
    outputs[2, 1] = np.nan
    with pytest.raises(OperatorError, match=r"NaN or infinite for 1 of 4 .*first: 2"):
        gate.refuse_not_finite((outputs,), what="m")


def test_a_copy_of_another_shape_is_no_copy() -> None:
    with pytest.raises(OperatorError, match="shapes"):
        gate.refuse_disparity((np.ones((2, 3)),), (np.ones((2, 4)),), tolerance=1, what="m")


def test_a_copy_that_strays_is_refused_and_one_that_does_not_is_measured() -> None:
    source, copy = (np.ones((2, 3)),), (np.ones((2, 3)) + 1e-3,)
    assert gate.refuse_disparity(source, copy, tolerance=1e-2, what="m") == pytest.approx(1e-3)
    with pytest.raises(OperatorError, match=r"differs from its source by 0\.001"):
        gate.refuse_disparity(source, copy, tolerance=1e-4, what="m")


def test_nan_in_a_copy_is_never_within_tolerance() -> None:
    with pytest.raises(OperatorError):
        gate.refuse_disparity((np.ones(2),), (np.full(2, np.nan),), tolerance=1e9, what="m")


def test_without_labels_disagreement_bounds_the_drop() -> None:
    assert gate.accuracy_drop(None, None, wilson(97, 100)) == pytest.approx(0.03)
    assert gate.accuracy_drop(wilson(98, 100), wilson(97, 100), wilson(1, 100)) == pytest.approx(
        0.01
    )
    assert gate.accuracy_drop(None, None, None) == 0.0


def test_the_budget_is_a_limit_not_a_goal() -> None:
    budget = Budget(max_accuracy_drop=0.01, min_sqnr_db=20)
    gate.refuse_over_budget(0.01, 20.0, budget, what="m")
    gate.refuse_over_budget(-0.5, 99.0, budget, what="m")
    with pytest.raises(OperatorError, match=r"drops by 1\.10 points, 1\.00 are allowed"):
        gate.refuse_over_budget(0.011, 99.0, budget, what="m")
    with pytest.raises(OperatorError, match=r"SQNR is 19\.9 dB"):
        gate.refuse_over_budget(0.0, 19.9, budget, what="m")
