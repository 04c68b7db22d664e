"""What of `make models` needs nothing fetched: digits in both formats, and traps of real models."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("skl2onnx", reason="the converter's extra is not installed")

from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Tensors
from edgefleet_agent.runtime.engines import open_session
from edgefleet_contract.bundle import Format
from tests.models import vision
from tests.models.players import served
from tests.models.report import render
from tests.models.squares import difference, row_of, rows_of
from tests.models.subject import Copy, Played, Player, Subject

FLOAT = ("onnx-float32", "tflite-float32")


def test_digits_served_in_both_formats_answer_as_the_plain_runtimes_do() -> None:
    subject = vision.digits(FLOAT)
    assert [copy.format for copy in subject.copies] == [Format.ONNX, Format.TFLITE]
    rows = [row_of(subject, copy) for copy in subject.copies]
    for row in rows:
        assert row.difference == 0, row
        assert row.is_good, row
        assert row.cases > 1


def awkward() -> bytes:
    """int32 and text in, names with colons, a dimension called "?", labels in the metadata."""
    kinds = {"n:0": TensorProto.INT32, "t:0": TensorProto.STRING}
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"out/{name}"]) for name in kinds],
        "awkward",
        [helper.make_tensor_value_info(name, kind, ["?", 2]) for name, kind in kinds.items()],
        [
            helper.make_tensor_value_info(f"out/{name}", kind, ["?", 2])
            for name, kind in kinds.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, {"labels": "no, yes"})
    raw: bytes = made.SerializeToString()
    return raw


def test_awkward_names_and_kinds_come_through() -> None:
    feeds = {
        "n:0": np.array([[1, -2], [2**31 - 1, 0]], np.int32),
        "t:0": np.array([["", "é\n"], ["x" * 300, "☃"]], object),
    }

    def play(player: Player, _: Copy) -> Played:
        return Played([player.run(feeds)])

    copy = Copy(Format.ONNX, awkward(), "made here", (feeds,))
    with served(copy) as device:
        (found,) = play(device, copy).answers
    assert {name: array.tolist() for name, array in found.items()} == {
        f"out/{name}": array.tolist() for name, array in feeds.items()
    }


def test_text_in_lower_case_needs_a_locale_or_is_refused_with_its_name() -> None:
    """TF-IDF with `lowercase=True` converts; onnxruntime then wants en_US.UTF-8."""
    texts = ["good words", "bad words", "good deeds", "bad deeds"]
    model = make_pipeline(TfidfVectorizer(lowercase=True), LogisticRegression())
    model.fit(texts, [1, 0, 1, 0])
    raw = to_onnx(
        model,
        initial_types=[("text", StringTensorType([None, 1]))],
        options={id(model.steps[-1][1]): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    ).SerializeToString()
    feeds: Tensors = {"text": np.array([["GOOD words"]], object)}
    try:
        found = str(
            open_session("onnxruntime", raw, threads=1, accelerator="cpu")
            .run(feeds)["label"]
            .tolist()
        )
    except (CannotLoad, CannotRun) as refusal:
        found = str(refusal)
    assert found == "[1]" or "locale" in found.lower()


def test_answers_differ_unless_every_byte_is_the_same() -> None:
    one = Played([{"y": np.array([0.0, 1.0], np.float32)}])
    assert difference(one, one) == 0
    assert difference(one, Played([{"y": np.array([0.5, 1.0], np.float32)}])) == 0.5
    assert difference(one, Played([{"y": np.array([-0.0, 1.0], np.float32)}])) > 0
    for other in ([], [{"z": one.answers[0]["y"]}], [{"y": np.array([0.0, 1.0])}]):
        assert difference(one, Played(other)) == float("inf")


def test_a_square_without_a_copy_says_why_in_the_table() -> None:
    empty = {Format.ONNX: "no writer", Format.TFLITE: "no | reader"}
    rows = rows_of(Subject(9, "x", (), lambda _, __: Played(), empty))
    table = render(rows)
    assert "| 9 | x | onnx | - no writer |" in table
    assert "- no / reader" in table
