"""Models that carry state from call to call: golden vectors are whole calls of a real sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgefleet_agent.ports import TrialReport
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.graph import StatePair
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.assembly import Built
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.sequences import beginning, run_sequence
from tests.converter.conftest import CREATED
from tests.converter.models import weights
from tests.converter.trials import tried

RECIPE = """
targets = ["onnx-as-is"]
[data]
held_out = "calls.npz"
[state]
state = "stateN"
[measure]
runs = 20
"""
LENGTH = 16


def memory() -> onnx.ModelProto:
    """[1, 16] samples, a state [1, batch, 8] and a rate that is a scalar -> [1, 1] and the state:
    h = tanh(x W + h U), of which sigmoid(h V) is the answer."""
    constants = {
        "w": weights(LENGTH, 8, seed=1),
        "u": weights(8, 8, seed=2),
        "v": weights(8, 1, seed=3, scale=2.0),
        "axis": np.array([0], np.int64),
        "full": np.array(16000, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["sr"], ["rate"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["rate", "full"], ["share"]),
        helper.make_node("Mul", ["input", "share"], ["x"]),
        helper.make_node("Squeeze", ["state", "axis"], ["h0"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["h0", "u"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Tanh", ["c"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["l"]),
        helper.make_node("Sigmoid", ["l"], ["output"]),
        helper.make_node("Unsqueeze", ["h", "axis"], ["stateN"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "memory",
        [
            value("input", TensorProto.FLOAT, ["batch", LENGTH]),
            value("state", TensorProto.FLOAT, [1, "batch", 8]),
            value("sr", TensorProto.INT64, []),
        ],
        [
            value("output", TensorProto.FLOAT, ["batch", 1]),
            value("stateN", TensorProto.FLOAT, [1, "batch", 8]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def by_hand(calls: np.ndarray, starts: set[int]) -> np.ndarray:
    """The answers, [T], as NumPy computes them."""
    w, u = weights(LENGTH, 8, seed=1), weights(8, 8, seed=2)
    v = weights(8, 1, seed=3, scale=2.0)
    h = np.zeros((1, 8), np.float32)
    found = []
    for t, call in enumerate(calls):
        h = np.zeros((1, 8), np.float32) if t in starts else h
        h = np.tanh(call @ w + h @ u)
        found.append(1 / (1 + np.exp(-(h @ v))))
    return np.concatenate(found).ravel()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, and two sequences of 20 calls each: noise whose loudness comes and goes."""
    made = tmp_path_factory.mktemp("state")
    onnx.save(memory(), made / "memory.onnx")
    loud = 0.1 + np.abs(np.sin(np.arange(40) / 5))[:, None, None]
    calls = (np.random.default_rng(4).normal(size=(40, 1, LENGTH)) * loud).astype(np.float32)
    answers = by_hand(calls, {0, 20})
    np.savez(
        made / "calls.npz",
        input=calls,
        sr=np.full(40, 16000, np.int64),
        sequence=np.repeat([1, 2], 20),
        y=(answers > 0.5).astype(np.int64),
    )
    return made


def built(folder: Path, key: PrivateKey, text: str = RECIPE, out: str = "out") -> Built:
    recipe = parse_recipe(text, folder=folder)
    path = folder / "memory.onnx"
    return build(
        path, recipe, out=folder / out, model="memory", version=1, key=key, created=CREATED
    )


@pytest.fixture(scope="module")
def remembered(folder: Path, key: PrivateKey) -> Built:
    return built(folder, key)


def test_clients_neither_send_nor_get_the_state(remembered: Built) -> None:
    (variant,) = remembered.manifest.variants
    assert variant.program is not None
    assert variant.program.state == (StatePair("state", "stateN"),)
    assert variant.program.nodes == ()
    assert [spec.name for spec in variant.inputs] == ["input", "state", "sr"]
    assert [spec.name for spec in variant.public_inputs] == ["input", "sr"]
    assert [spec.name for spec in variant.public_outputs] == ["output"]


def test_golden_vectors_are_whole_calls_with_the_state_between_them(
    remembered: Built, folder: Path
) -> None:
    (variant,) = remembered.manifest.variants
    calls, state, rate = load_tensors(remembered.path / variant.golden, "input")
    answers, after = load_tensors(remembered.path / variant.golden, "output")
    assert [a.shape for a in (calls, state, rate)] == [(16, 1, LENGTH), (16, 1, 1, 8), (16,)]
    w, u, v = (weights(LENGTH, 8, seed=1), weights(8, 8, seed=2), weights(8, 1, seed=3, scale=2.0))
    for call, before, answer, given in zip(calls, state, answers, after, strict=True):
        h = np.tanh(call @ w + before[0] @ u)
        assert np.abs(given[0] - h).max() < 1e-5
        assert abs(answer.item() - 1 / (1 + np.exp(-(h @ v).item()))) < 1e-5
    assert sum(bool(before.any()) for before in state) >= 15
    assert (rate == 16000).all()


def test_drawn_calls_are_none_of_the_sequences(remembered: Built, folder: Path) -> None:
    (variant,) = remembered.manifest.variants
    calls = load_tensors(remembered.path / variant.golden, "input")[0]
    held_out = np.load(folder / "calls.npz")["input"]
    assert np.abs(calls[:, None] - held_out[None]).max(axis=(2, 3)).min() > 0.1


def test_held_out_calls_have_the_state_that_was_before_them(folder: Path, key: PrivateKey) -> None:
    text = RECIPE + '[golden]\ninputs = "held-out"\n'
    made = built(folder, key, text, out="held-out")
    (variant,) = made.manifest.variants
    calls, state, _ = load_tensors(made.path / variant.golden, "input")
    answers, after = load_tensors(made.path / variant.golden, "output")
    data = np.load(folder / "calls.npz")
    expected = by_hand(data["input"], {0, 20})
    for call, before, answer, given in zip(calls, state, answers, after, strict=True):
        (t,) = np.flatnonzero((data["input"] == call).all(axis=(1, 2)))
        assert abs(answer.item() - expected[t]) < 1e-5
        assert not before.any() if t in (0, 20) else before.any()
        assert np.abs(given).max() <= 1


def test_accuracy_is_that_of_the_sequence(remembered: Built) -> None:
    (told,) = remembered.report.variants
    assert told.accuracy is not None
    assert told.accuracy.value == 1.0
    assert told.measured is not None


def test_a_device_gives_the_golden_answers_of_the_sequence(remembered: Built) -> None:
    report = tried(remembered.path, remembered.manifest, "onnx-as-is")
    assert isinstance(report, TrialReport), report
    assert report.vectors == 16


def test_steps_stand_around_a_model_with_state(folder: Path, key: PrivateKey) -> None:
    data = dict(np.load(folder / "calls.npz"))
    sound = np.round(data["input"].clip(-2, 2) * 8000).astype(np.int16)
    np.savez(folder / "sound.npz", sound=sound, **{k: data[k] for k in ("sr", "sequence")})
    steps = (
        '[[before]]\nstep = "scale"\ninputs = ["sound"]\noutputs = ["input"]\nfactor = "1/8000"\n'
    )
    more = '[[after]]\nstep = "threshold"\noutputs = ["speech"]\nat = 0.5\n'
    made = built(folder, key, RECIPE.replace("calls", "sound") + steps + more, "steps")
    (variant,) = made.manifest.variants
    assert [(s.name, s.dtype) for s in variant.public_inputs] == [
        ("sound", "int16"),
        ("sr", "int64"),
    ]
    assert [(s.name, s.dtype) for s in variant.public_outputs] == [("speech", "bool")]
    report = tried(made.path, made.manifest, "onnx-as-is")
    assert isinstance(report, TrialReport), report


def test_the_same_sequence_gives_the_same_bytes(folder: Path, key: PrivateKey) -> None:
    text = RECIPE.replace("runs = 20", "enabled = false")
    first, second = (built(folder, key, text, out) for out in ("first", "second"))
    assert first.manifest == second.manifest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('state = "stateN"', 'state = "stateM"'), "no tensor 'stateM'"),
        (("onnx-as-is", "onnx-float32"), "only targets that are as they came in"),
    ],
)
def test_a_state_that_cannot_be_carried_is_refused(
    folder: Path, key: PrivateKey, change: tuple[str, str], says: str
) -> None:
    with pytest.raises(OperatorError) as caught:
        built(folder, key, RECIPE.replace(*change), "refused")
    assert says in caught.value.message


class Counter:
    """Counts its calls by itself, as models do that keep state inside."""

    inputs = (TensorSpec("x", "float32", (1,)),)
    outputs = (TensorSpec("n", "float32", (1,)),)

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        self.calls += 1
        return (inputs[0] + self.calls,)


def test_a_model_with_hidden_state_is_loaded_anew_for_each_sequence() -> None:
    sent = (np.zeros((5, 1), np.float32),)
    _, (given,) = run_sequence(Counter, sent, (), starts=(0, 3), hidden=True)
    assert given.ravel().tolist() == [1, 2, 3, 1, 2]


def test_a_state_begins_with_zeros_and_sizes_of_one() -> None:
    assert beginning(TensorSpec("s", "float32", (2, -1, 3))).shape == (2, 1, 3)
    assert beginning(TensorSpec("s", "string", (1,))).tolist() == [""]
