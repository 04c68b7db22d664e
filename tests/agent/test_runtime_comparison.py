"""How two versions' outputs are held against each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgefleet_agent.runtime.comparison import Comparison, Tally, compare
from edgefleet_agent.serving import rest_v1
from edgefleet_contract import codec
from edgefleet_contract.bundle import TensorSpec


def scores(*rows: list[float]) -> dict[str, np.ndarray]:
    return {"y": np.array(rows)}


def text(*words: str) -> dict[str, np.ndarray]:
    return {"label": np.array(words, dtype=object)}


@pytest.mark.parametrize(
    ("found", "served", "expected"),
    [
        pytest.param(
            scores([0.1, 0.9]), scores([0.2, 0.8]), Comparison(True, 0.1, 0.2, 2), id="the same top"
        ),
        pytest.param(
            scores([0.1, 0.9], [0.9, 0.1]),
            scores([0.1, 0.9], [0.1, 0.9]),
            Comparison(False, 0.8, 1.6, 4),
            id="one row of two has another top",
        ),
        pytest.param(
            scores([3.0], [4.0]),
            scores([3.5], [4.0]),
            Comparison(None, 0.5, 0.5, 2),
            id="no scores",
        ),
        pytest.param(
            scores([0.1, 0.9]),
            scores([0.1, 0.8, 0.1]),
            Comparison(False, 0.0, 0.0, 0),
            id="another number of classes",
        ),
        pytest.param(text("cat"), text("cat"), Comparison(True, 0.0, 0.0, 0), id="the same text"),
        pytest.param(text("cat"), text("dog"), Comparison(False, 0.0, 0.0, 0), id="another text"),
        pytest.param(
            {"": np.array([1.0])},
            {"logits": np.array([1.0])},
            Comparison(None, 0.0, 0.0, 1),
            id="the only output needs no name",
        ),
        pytest.param(
            {"a": np.array([1.0]), "b": np.array([1.0])},
            {"a": np.array([1.0]), "c": np.array([1.0])},
            Comparison(False, 0.0, 0.0, 1),
            id="an output that the other has not",
        ),
    ],
)
def test_a_comparison(
    found: dict[str, np.ndarray], served: dict[str, np.ndarray], expected: Comparison
) -> None:
    seen = compare(found, served)
    assert (seen.agrees, seen.values) == (expected.agrees, expected.values)
    assert (seen.max_abs_diff, seen.total_abs_diff) == pytest.approx(
        (expected.max_abs_diff, expected.total_abs_diff)
    )


def test_a_tally_averages_over_values_and_counts_what_gave_no_prediction() -> None:
    tally = Tally()
    tally.count(Comparison(True, 1.0, 1.0, 10), serving_us=100, candidate_us=200)
    tally.count(Comparison(False, 4.0, 8.0, 8), serving_us=100, candidate_us=200)
    tally.count(Comparison(None, 0.0, 0.0, 0), serving_us=100, candidate_us=200)
    tally.count(None, serving_us=100, candidate_us=0)
    report = tally.report(cpu_s=1.5)
    assert (report.requests, report.errors, report.judged, report.agreements) == (4, 1, 2, 1)
    assert (report.max_abs_diff, report.mean_abs_diff, report.cpu_s) == (4.0, 0.5, 1.5)
    assert report.agreement == 0.5
    assert Tally().report(0.0).agreement is None


def test_a_report_holds_numbers_and_nothing_that_was_asked_or_answered() -> None:
    tally = Tally()
    tally.count(compare(text("secret"), text("secret")), serving_us=1, candidate_us=1)
    told = codec.encode(tally.report(cpu_s=0.0))
    assert isinstance(told, dict)
    assert all(isinstance(value, bool | int | float) for value in told.values())


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("outputs", [1, 2])
def test_an_answer_read_again_holds_the_outputs_that_were_rendered(
    rows: bool, outputs: int
) -> None:
    result = {
        "scores": np.array([[0.1, 0.7], [0.5, 1e-7]], np.float32),
        "label": np.array(["cat", "dög"], dtype=object),
    }
    specs = (TensorSpec("scores", "float32", (-1, 2)), TensorSpec("label", "string", (-1,)))[
        :outputs
    ]
    body = rest_v1.render(rest_v1.Request((), rows, 2), result, specs)
    found = rest_v1.read_answer(body)
    if outputs == 1:
        assert np.array_equal(found[""], result["scores"])  # float32 is exact in JSON
    else:
        assert np.array_equal(found["scores"], result["scores"])
        assert np.array_equal(found["label"], result["label"])
