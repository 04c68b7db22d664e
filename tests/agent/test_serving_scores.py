"""TensorFlow Serving's classify and regress, through a real front and real workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.ports import Failed
from edgefleet_agent.serving.bodies import Served
from edgefleet_agent.serving.rest_v1_scores import classify, read_scores
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import Answered, RunningHost, running
from tests.agent.models import (
    linear,
    linear_spec,
    make_spec,
    pixels,
    with_labels,
)

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "acht", "neuf été")
ROWS = pixels(2)
LOG_X, LOG_Y = TensorSpec("x", "float32", (-1,)), TensorSpec("y", "float32", (-1,))
A, B = TensorSpec("a", "float32", (-1, 2)), TensorSpec("b", "float32", (-1, 2))
SUM, PRODUCT = TensorSpec("sum", "float32", (-1, 2)), TensorSpec("product", "float32", (-1, 2))
ONE_X, ONE_Y = TensorSpec("x", "float32", (1, 64)), TensorSpec("y", "float32", (1, 10))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """A classifier with names, one without, one with too few, a regressor, and neither."""
    folder = tmp_path_factory.mktemp("models")
    labels, few = folder / "labels.txt", folder / "few.txt"
    labels.write_text("".join(f"{name}\n" for name in NAMES), "utf-8")
    few.write_text("one\ntwo\n")
    log, ones = np.ones(2, np.float32), np.ones((2, 2), np.float32)
    with running() as here:
        specs = (
            with_labels(linear_spec(folder), labels),
            linear_spec(folder, slot="nameless"),
            with_labels(linear_spec(folder, slot="few"), few),
            make_spec(
                folder,
                "fixed.onnx",
                {ONE_X: pixels(1)},
                {ONE_Y: linear(pixels(1), 0)},
                slot="fixed",
            ),
            make_spec(folder, "log.onnx", {LOG_X: log}, {LOG_Y: log * 0}, slot="log"),
            make_spec(
                folder, "pair.onnx", {A: ones, B: ones}, {SUM: ones * 2, PRODUCT: ones}, slot="pair"
            ),
        )
        assert here.do(here.host.activate(specs)) is None
        yield here


def ask(here: RunningHost, slot: str, verb: str, body: object) -> Answered:
    return here.ask("POST", f"/v1/models/{slot}:{verb}", body)


def examples(rows: np.ndarray) -> dict[str, object]:
    return {"examples": [{"x": row.tolist()} for row in rows]}


def test_classes_are_named_by_the_labels_of_the_bundle(here: RunningHost) -> None:
    answer = ask(here, "digits", "classify", examples(ROWS) | {"signature_name": "serving_default"})
    assert answer.status == 200
    assert answer.headers["edgefleet-model-version"] == "1"
    assert answer.json() == {
        "result": [
            [[name, score] for name, score in zip(NAMES, scores, strict=True)]
            for scores in linear(ROWS).tolist()
        ]
    }
    for of in ("versions/1", "labels/stable"):
        same = here.ask("POST", f"/v1/models/digits/{of}:classify", examples(ROWS))
        assert same.body == answer.body


def test_classes_without_labels_are_named_by_empty_text(here: RunningHost) -> None:
    answer = ask(here, "nameless", "classify", examples(ROWS[:1]))
    assert answer.json() == {"result": [[["", score] for score in linear(ROWS)[0].tolist()]]}


def test_examples_for_a_batch_of_one_are_run_one_by_one(here: RunningHost) -> None:
    answer = ask(here, "fixed", "classify", examples(ROWS)).json()["result"]
    assert [[score for _, score in row] for row in answer] == linear(ROWS, 0).tolist()


def test_one_number_a_row_is_a_regression(here: RunningHost) -> None:
    answer = ask(here, "log", "regress", {"examples": [{"x": 1.0}, {"x": [1]}]})
    assert answer.json() == {"result": [0.0, 0.0]}


def test_the_context_stands_for_what_an_example_leaves_out(here: RunningHost) -> None:
    body = {"context": {"x": 1.0}, "examples": [{}, {"x": 1}]}
    assert ask(here, "log", "regress", body).json() == {"result": [0.0, 0.0]}


@pytest.mark.parametrize(
    ("slot", "verb", "body", "status", "says"),
    [
        ("pair", "classify", {"examples": [{}]}, 400, "'classify' is for models of one float"),
        ("pair", "regress", {"examples": [{}]}, 400, "this one takes 'a' float32 [-1, 2], 'b'"),
        ("log", "classify", {"examples": [{"x": 1}]}, 400, "scores of two classes or more"),
        ("digits", "regress", {"examples": [{"x": 1}]}, 400, "and one number a row"),
        ("digits", "classify", {}, 400, "'examples' is missing"),
        ("digits", "classify", {"examples": []}, 400, "'examples' is empty"),
        ("digits", "classify", {"examples": {}}, 400, "'examples' is an object"),
        ("digits", "classify", {"instances": []}, 400, "unknown key 'instances'"),
        ("digits", "classify", {"examples": [1]}, 400, "example 0 is a number"),
        ("digits", "classify", {"examples": [{"z": 1}]}, 400, "example 0 has 'z', expected 'x'"),
        ("digits", "classify", {"examples": [{}]}, 400, "example 0 has nothing, expected 'x'"),
        ("digits", "classify", {"examples": [{"x": [1]}]}, 400, "has 1 values of 'x', expected 64"),
        ("digits", "classify", {"examples": [{"x": ["a"] * 64}]}, 400, "holds text"),
        ("digits", "classify", {"examples": [{"x": [[1]] * 64}]}, 400, "shape [1, 64, 1]"),
        ("digits", "classify", {"examples": [{}], "context": 1}, 400, "'context' is a number"),
        ("few", "classify", {"examples": [{"x": [0] * 64}]}, 500, "10 scores for 2 labels"),
        ("log", "regress", {"examples": [{"x": 0}]}, 500, "'y' holds NaN or infinity"),
    ],
)
def test_a_refusal_says_what_was_found(
    here: RunningHost, slot: str, verb: str, body: object, status: int, says: str
) -> None:
    answer = ask(here, slot, verb, body)
    assert says in answer.json()["error"]
    assert answer.status == status


def test_labels_that_cannot_be_read_are_found_out_before_the_version_serves(tmp_path: Path) -> None:
    with running() as here:
        spec = with_labels(linear_spec(tmp_path), tmp_path / "gone.txt")
        failed = here.do(here.host.activate((spec,)))
        assert isinstance(failed, Failed)
        assert failed.reason is Reason.ACTIVATION_FAILED
        assert "labels.txt: No such file or directory" in failed.detail


def test_a_classifier_that_also_names_its_choice_is_asked_for_its_scores() -> None:
    """As scikit-learn's are converted; pictures come as flat lists."""
    model = Served(
        "shapes",
        1,
        inputs=(TensorSpec("picture", "float32", (-1, 2, 2)),),
        outputs=(
            TensorSpec("label", "string", (-1,)),
            TensorSpec("probabilities", "float32", (-1, 2)),
        ),
        labels=("flat", "steep"),
    )

    question = classify(b'{"examples": [{"picture": [1, 2, 3, 4]}]}', model)
    assert question.calls[0]["picture"].tolist() == [[[1, 2], [3, 4]]]
    label, scores = np.array(["flat"], object), np.array([[0.75, 0.25]], np.float32)
    body = question.tell({"label": label, "probabilities": scores})
    assert json.loads(body) == {"result": [[["flat", 0.75], ["steep", 0.25]]]}
    assert read_scores(body)[""].tolist() == [[0.75, 0.25]]
