from __future__ import annotations

import numpy as np
import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_converter import golden

Q = 1 / 256


def scores(classes: list[int], width: int = 3) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[classes]


def test_classes_take_turns() -> None:
    chosen = golden.choose((scores([0, 0, 0, 0, 1, 2]),), (), count=3, quantum=Q)
    assert chosen.rows == (0, 4, 5)


def test_examples_on_which_kernels_differ_come_last() -> None:
    mine = scores([0, 0, 0])
    theirs = mine.copy()
    theirs[0] += 3 * Q
    chosen = golden.choose((mine,), ((theirs,),), count=2, quantum=Q)
    assert chosen.rows == (1, 2)
    assert chosen.max_abs_err_e6 == golden.e6(Q)


def test_where_kernels_always_differ_the_tolerance_is_twice_what_was_measured() -> None:
    mine = scores([0, 1])
    chosen = golden.choose((mine,), ((mine + np.float32(2.4 * Q),),), count=2, quantum=Q)
    measured = chosen.strays[0].vectors
    assert abs(measured - 2.4 * Q) < 1e-6
    assert chosen.max_abs_err_e6 == golden.e6(2 * measured)


def test_what_kernels_differ_by_within_half_the_floor_changes_nothing() -> None:
    mine = scores([0, 1])
    chosen = golden.choose((mine,), ((mine + np.float32(0.4 * Q),),), count=2, quantum=Q)
    assert chosen.max_abs_err_e6 == golden.e6(Q)
    assert chosen.floor == Q


def test_a_stray_is_told_of_the_vectors_and_of_all_examples() -> None:
    mine = scores([0, 0, 0])
    theirs = mine.copy()
    theirs[0] += 3 * Q
    (stray,) = golden.choose((mine,), ((theirs,),), count=2, quantum=Q).strays
    assert stray == golden.Stray(0.0, 3 * Q)


def test_vectors_fill_whole_batches() -> None:
    mine = scores([0, 1, 2, 0, 1, 2, 0])
    assert len(golden.choose((mine,), (), count=4, quantum=Q, batch=3).rows) == 6
    assert len(golden.choose((mine,), (), count=16, quantum=Q, batch=3).rows) == 6
    assert len(golden.choose((mine,), (), count=16, quantum=Q).rows) == 7


def test_a_tolerance_in_millionths_is_never_below_the_value() -> None:
    for value in (Q, 1 / 255, 1e-5, 0.0, 1.0, 0.3922):
        assert golden.e6(value) / 1e6 >= value


def test_a_float_tolerance_follows_the_magnitude() -> None:
    assert golden.float_tolerance((np.asarray([0.5]),)) == 1e-5
    assert golden.float_tolerance((np.asarray([-300.0]),)) == 3e-3


def test_a_quantum_is_the_files_or_the_255th_of_the_range() -> None:
    outputs = (np.asarray([[0.0, 5.1]]),)
    assert golden.output_quantum(outputs, 0.0) == 5.1 / 255
    assert golden.output_quantum(outputs, 0.5) == 0.5


def test_inputs_that_are_drawn_may_have_answers_that_are_not_finite() -> None:
    mine = scores([0, 1, 2])
    mine[1] = np.nan
    assert golden.choose((mine,), ((mine.copy(),),), count=3, quantum=Q).rows == (0, 2)
    assert golden.choose((mine,), (), count=3, quantum=Q).rows == (0, 2)
    with pytest.raises(OperatorError, match="not finite"):
        golden.choose((np.full((2, 3), np.inf, np.float32),), (), count=2, quantum=Q)


def test_a_stray_on_held_out_examples_is_of_these() -> None:
    mine, seen = scores([0, 1]), scores([0, 1, 2])
    held_out = ((seen,), ((seen + np.float32(0.5),),))
    (stray,) = golden.choose((mine,), ((mine,),), count=2, quantum=Q, held_out=held_out).strays
    assert stray == golden.Stray(0.0, 0.5)


def test_vectors_that_hardly_move_the_answers_are_refused() -> None:
    seen = scores([0, 1, 2] * 10)
    golden.refuse_idle((scores([0, 1]),), (seen,))
    golden.refuse_idle((np.ones((2, 3)),), (np.ones((9, 3)),))
    with pytest.raises(OperatorError, match="hardly move"):
        golden.refuse_idle((scores([1, 1]) * np.float32(0.9),), (seen,))
    words = np.asarray(["yes", "no"] * 8, object)
    golden.refuse_idle((words[:2], np.zeros((2, 1))), (words, np.zeros((16, 1))))
    with pytest.raises(OperatorError, match="hardly move"):
        golden.refuse_idle((words[::2][:2],), (words,))
