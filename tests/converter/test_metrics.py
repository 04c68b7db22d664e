from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_converter import metrics


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_holds_its_share_and_stays_between_0_and_1(
    counts: tuple[int, int],
) -> None:
    share = metrics.wilson(*counts)
    assert 0.0 <= share.low <= share.value + 1e-12
    assert share.value - 1e-12 <= share.high <= 1.0


def test_the_wilson_interval_is_the_published_one() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 gives .2553 to .3662.
    share = metrics.wilson(81, 263)
    assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)


def test_sqnr_of_a_known_noise_is_known() -> None:
    signal = np.full((10, 4), 3.0)
    assert metrics.sqnr_db(signal, signal + 0.03) == pytest.approx(40.0)
    assert metrics.sqnr_db(signal, signal) == 200.0
    assert metrics.sqnr_db(np.zeros(3), np.ones(3)) == -200.0


def test_one_score_a_row_decides_at_one_half() -> None:
    assert metrics.decide(np.asarray([0.2, 0.9])).tolist() == [0, 1]
    assert metrics.decide(np.asarray([[0.2, 0.8], [0.9, 0.1]])).tolist() == [1, 0]


def test_probabilities_are_told_from_other_numbers() -> None:
    assert metrics.are_probabilities(np.asarray([[0.25, 0.75]], np.float32))
    assert not metrics.are_probabilities(np.asarray([[-0.25, 1.25]], np.float32))
    assert not metrics.are_probabilities(np.asarray([[3.0, 4.0]], np.float32))
    assert not metrics.are_probabilities(np.asarray([[1.0]], np.float32))


def test_a_relative_error_counts_absolutely_below_one() -> None:
    assert metrics.relative_err(np.asarray([0.5]), np.asarray([0.6])) == pytest.approx(0.1)
    assert metrics.relative_err(np.asarray([50.0]), np.asarray([51.0])) == pytest.approx(0.02)
