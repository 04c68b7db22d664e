"""How steps are laid around a model: names, nodes, borders; what a recipe's numbers become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.graph import MODEL, Program, StatePair
from edgefleet_converter import golden
from edgefleet_converter.borders import Border
from edgefleet_converter.decisions import decided
from edgefleet_converter.program import Files, Linked, link, place_files
from edgefleet_converter.program_words import program_lines
from edgefleet_converter.recipe import Recipe, parse_recipe
from edgefleet_converter.recipe_steps import AskedStep

NO_FILES = Files({}, labels=False)
LABELS = Files({}, labels=True)


def laid(
    before: tuple[AskedStep, ...] = (),
    after: tuple[AskedStep, ...] = (),
    *,
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
    files: Files = NO_FILES,
    state: tuple[StatePair, ...] = (),
    wanted: tuple[str, ...] = (),
) -> Linked:
    return link(
        before, after, inputs=inputs, outputs=outputs, files=files, state=state, wanted=wanted
    )


def recipe(text: str) -> Recipe:
    data = 'targets = ["onnx-as-is"]\n[data]\nheld_out = "h.npz"\n'
    return parse_recipe(data + text, folder=Path("/recipes"))


def test_without_steps_there_is_nothing_to_run_but_the_model() -> None:
    assert not laid().needs_nodes


def test_steps_follow_one_another_where_they_name_nothing() -> None:
    line = laid((AskedStep("grey"), AskedStep("scale")), (AskedStep("softmax"),))
    (grey, scale, model, softmax) = line.nodes("m.onnx")
    assert (grey.inputs, scale.inputs, model.inputs) == (("x",), ("grey",), ("scale",))
    assert (model.op, model.file, softmax.inputs) == (MODEL, "m.onnx", ("y",))
    assert line.sent == ("x",)
    assert line.got == ("probability",)


def test_a_name_that_is_taken_gets_a_number() -> None:
    line = laid((AskedStep("scale"), AskedStep("scale")), inputs=("scale",))
    assert [node.outputs for node in line.before] == [("scale.2",), ("scale.3",)]


def test_tensors_go_to_the_inputs_of_their_names() -> None:
    line = laid(
        (AskedStep("wordpiece", ("text",), ("ids", "mask")),), inputs=("mask", "kind", "ids")
    )
    assert line.sent == ("text", "kind")
    assert line.nodes("m")[1].inputs == ("mask", "kind", "ids")


def test_several_inputs_need_names() -> None:
    with pytest.raises(OperatorError, match="several inputs"):
        laid((AskedStep("scale"),), inputs=("a", "b"))


def test_a_tensor_that_nobody_gives_is_named() -> None:
    with pytest.raises(OperatorError, match="'boxes'"):
        laid(wanted=("boxes",))


def test_a_step_behind_the_model_may_take_what_one_before_it_gave() -> None:
    line = laid(
        (AskedStep("letterbox", ("image",), ("square", "place")),),
        (AskedStep("unletterbox", ("y", "place"), ("boxes",)),),
    )
    assert line.sent == ("image",)
    assert line.got == ("boxes",)
    assert line.nodes("m")[1].inputs == ("square",)


def test_labels_are_one_file_of_the_bundle() -> None:
    line = laid(after=(AskedStep("top_k", file="mine.txt", settings={"k": 1}),), files=LABELS)
    assert line.after[0].file == "labels.txt"
    assert line.got == ("label", "score")
    bare = laid(after=(AskedStep("top_k", settings={"k": 1}),))
    assert bare.after[0].file == ""
    assert bare.got == ("score", "class")


def test_files_of_steps_have_names_that_a_bundle_can_have() -> None:
    steps = (AskedStep("words", file="a/vocab.txt"), AskedStep("words", file="a/vocab.txt"))
    assert place_files(steps) == {"a/vocab.txt": "steps/vocab.txt"}
    with pytest.raises(OperatorError, match="cannot be the name"):
        place_files((AskedStep("words", file="Vocab.txt"),))
    with pytest.raises(OperatorError, match="two files"):
        place_files((*steps, AskedStep("words", file="b/vocab.txt")))


def test_state_is_neither_sent_nor_got() -> None:
    pair = StatePair("s", "t")
    line = laid(inputs=("x", "s"), outputs=("y", "t"), state=(pair,))
    assert (line.sent, line.got, line.needs_nodes) == (("x",), ("y",), False)
    with pytest.raises(OperatorError, match="no tensor 'u'"):
        laid(inputs=("x", "s"), outputs=("y", "t"), state=(StatePair("s", "u"),))
    with pytest.raises(OperatorError, match="is state"):
        laid(inputs=("x", "s"), outputs=("y", "t"), state=(pair,), wanted=("y", "t"))


def test_a_border_of_a_file_becomes_two_steps() -> None:
    line = laid((AskedStep("scale"),))
    border = Border("0.5", -3, "int8")
    (_, into, model, out) = line.nodes("m", (border,), (border,))
    assert (into.op, into.inputs, into.outputs) == ("quantize", ("scale",), model.inputs)
    assert into.settings == {"scale": "0.5", "zero_point": -3, "dtype": "int8"}
    assert (out.op, out.inputs, out.outputs) == ("dequantize", model.outputs, ("y",))


def test_numbers_of_a_recipe_become_exact_text_where_steps_take_text() -> None:
    found = recipe(
        '[[before]]\nstep = "normalise"\nmean = [0.485, 1]\nstd = ["1/255", 1e-05]\naxis = 1\n'
        '[[after]]\nstep = "threshold"\nat = 0.5\n'
    )
    assert found.before[0].settings == {
        "mean": ["0.485", "1"],
        "std": ["1/255", "1e-05"],
        "axis": 1,
    }
    assert found.after[0].settings == {"at": "0.5"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[before]]\nstep = "blur"\n', "recipe.before[0]: there is no step 'blur'"),
        ("[[before]]\nheight = 1\n", "there is no step"),
        ('[[after]]\nstep = "top_k"\nn = 1\n', "unknown field 'n'"),
        ('[[after]]\nstep = "top_k"\n', "field 'k' is missing"),
        ('[[after]]\nstep = "softmax"\nfile = "f.txt"\n', "takes no file"),
        ('[before]\nstep = "grey"\n', "expected [[before]] tables"),
        ("[state]\nh = 1\n", "recipe.state.h: expected a string"),
    ],
)
def test_a_step_that_cannot_be_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(OperatorError) as caught:
        recipe(text)
    assert says in caught.value.message


def test_a_program_is_shown_in_words() -> None:
    found = recipe('[[before]]\nstep = "resize"\nheight = 8\nwidth = 9\nantialias = false\n')
    line = laid(found.before, state=())
    program = Program(line.nodes("v/m.onnx"), hidden_state=True)
    assert list(program_lines(program)) == [
        "1. x -> resize -> resize  (antialias no, height 8, width 9)",
        "2. resize -> model -> y  (by v/m.onnx)",
        "state: kept inside of the model from one call to the next",
    ]


def text(*rows: str) -> np.ndarray:
    return np.array([[row] for row in rows])


def test_text_decides_before_numbers_and_numbers_before_scores() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    places = np.array([[1, 0], [0, 1]], np.int64)
    names = ("no", "yes")
    for outputs, expected in (
        ((scores, text("no", "yes")), [0, 1]),
        ((scores, places), [1, 0]),
        ((np.array([True, False]),), [1, 0]),
        ((scores,), [1, 0]),
        ((scores.astype(np.int8),), [0, 0]),
    ):
        found = decided(outputs, names)
        assert found is not None
        assert found.tolist() == expected
    assert decided((text("maybe", "no"),), names) is None


def test_no_golden_vector_has_text_that_changes_with_a_quantum() -> None:
    names, scores = text("a", "b", "c"), np.array([[0.5], [0.6], [0.7]], np.float32)
    moved = (text("a", "x", "c"), scores + np.float32(0.01))
    chosen = golden.choose_whole(
        (names, scores), (), (moved,), count=16, classes=np.array([0, 1, 2])
    )
    assert chosen.rows == (0, 2)
    assert 10_000 <= chosen.max_abs_err_e6 <= 10_002
    with pytest.raises(OperatorError, match="no golden vectors"):
        golden.choose_whole((names,), (), ((text("z", "y", "x"),),), count=1, classes=None)


def test_rows_of_one_sequence_are_kept_in_their_order() -> None:
    scores = np.linspace(0, 1, 8, dtype=np.float32)[:, None]
    chosen = golden.choose_whole(
        (scores,), (), ((scores,),), count=3, classes=np.arange(8)[::-1].copy(), in_order=True
    )
    assert chosen.rows == (0, 1, 2)
