"""Which results are said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent.sources.changes import Said, cause_of, tops_of
from edgefleet_agent.sources.config import SinkConfig


def said(at: float = 0.0, **outputs: Any) -> Said:
    arrays = {
        name: np.array(value, object if isinstance(value[0], str) else None)
        for name, value in outputs.items()
    }
    return Said(arrays, tops_of(arrays), at)


RULE = SinkConfig("mqtt")
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("before", "now", "rule", "cause"),
    [
        (None, said(y=[1.0]), RULE, "first"),
        (said(y=[[0.9, 0.1]]), said(y=[[0.6, 0.4]]), RULE, ""),
        (said(y=[[0.9, 0.1]]), said(y=[[0.4, 0.6]]), RULE, "class"),
        (said(y=[[9, 1], [9, 1]]), said(y=[[9, 1], [1, 9]]), RULE, "class"),
        (said(y=[[0.9, 0.1]]), said(y=[[0.6, 0.4]]), SinkConfig("m", deadband=0.2), "number"),
        (said(y=[[0.9, 0.1]]), said(y=[[0.8, 0.2]]), SinkConfig("m", deadband=0.2), ""),
        (said(y=[[20.0]]), said(y=[[20.5]]), RULE, "number"),
        (said(y=[[20.0]]), said(y=[[20.5]]), SinkConfig("m", deadband=0.5), ""),
        (said(y=[[20.0]]), said(y=[[20.6]]), SinkConfig("m", deadband=0.5), "number"),
        (said(y=[[20.0]]), said(y=[[19.4]]), SinkConfig("m", deadband=0.5), "number"),
        (said(y=[200]), said(y=[201]), SinkConfig("m", deadband=1), ""),
        (said(y=[NAN]), said(y=[NAN]), RULE, ""),
        (said(y=[NAN]), said(y=[1.0]), SinkConfig("m", deadband=9), "number"),
        (said(y=[1.0]), said(y=[NAN]), SinkConfig("m", deadband=9), "number"),
        (said(y=[INF]), said(y=[INF]), RULE, ""),
        (said(y=[INF]), said(y=[-INF]), SinkConfig("m", deadband=9), "number"),
        (said(y=["cat"]), said(y=["cat"]), RULE, ""),
        (said(y=["cat"]), said(y=["dog"]), RULE, "text"),
        (said(y=[1.0]), said(y=[1.0, 1.0]), RULE, "shape"),
        (said(y=[1.0]), said(z=[1.0]), RULE, "shape"),
        (said(y=[1.0]), said(9.0, y=[1.0]), SinkConfig("m", at_least_every_s=10), ""),
        (said(y=[1.0]), said(10.0, y=[1.0]), SinkConfig("m", at_least_every_s=10), "time"),
        (said(y=[1.0]), said(99.0, y=[2.0]), SinkConfig("m", at_least_every_s=10), "number"),
        (said(y=[1.0]), said(99.0, y=[1.0]), RULE, ""),
        (said(y=[1.0]), said(y=[1.0]), SinkConfig("m", on="every"), "every"),
        # scores beside a number: the number counts, the scores by their class
        (said(y=[[1, 9]], t=[20.0]), said(y=[[2, 9]], t=[20.0]), RULE, ""),
        (said(y=[[1, 9]], t=[20.0]), said(y=[[1, 9]], t=[21.0]), RULE, "number"),
    ],
)
def test_a_result_is_said_for_its_cause(
    before: Said | None, now: Said, rule: SinkConfig, cause: str
) -> None:
    assert cause_of(before, now, rule) == cause


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=50),
    st.floats(0, 20, allow_subnormal=False),
)
def test_what_was_said_last_is_never_further_off_than_the_deadband(
    values: list[float], deadband: float
) -> None:
    """Also when it drifts by small steps: what counts is what was said, not what came before."""
    rule = SinkConfig("mqtt", deadband=deadband)
    last: Said | None = None
    for value in values:
        now = said(y=[value])
        if cause_of(last, now, rule):
            last = now
        assert last is not None
        assert abs(last.outputs["y"][0] - value) <= deadband


def test_scores_are_rows_of_several_numbers_in_one_output() -> None:
    assert tops_of({"y": np.array([[1, 3, 2], [9, 0, 0]])}) == (1, 0)
    assert tops_of({"y": np.array([[1.0]])}) == ()
    assert tops_of({"y": np.array([1.0, 2.0])}) == ()
    assert tops_of({"y": np.ones((2, 3)), "z": np.ones((2, 3))}) == ()
    assert tops_of({"y": np.ones((0, 3))}) == ()
    assert tops_of({"y": np.array([["a", "b"]], object)}) == ()
