"""The graph: what is run, who is to blame, and that nothing is kept longer than it is needed."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_contract.graph import MAX_NODES, Node
from edgefleet_processing import BadInput, StepFailed, graph, prepare
from edgefleet_processing.graph import model_files, step_files
from edgefleet_processing.step import File
from edgefleet_processing.table import STEPS
from tests.processing.steps import LEAST

X = np.float32([[1, 2, 3]])


def scale(source: str, to: str, factor: str = "2") -> Node:
    return Node("scale", (source,), (to,), settings={"factor": factor})


def doubled(taken: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return (taken[0] * 2,)


def test_nodes_run_in_their_order_and_fan_in() -> None:
    nodes = (
        scale("x", "a"),
        Node("model", ("a",), ("b",), "m.onnx"),
        Node("model", ("x",), ("c",), "n.onnx"),
        Node("weighted_mean", ("b", "c"), ("y",), settings={"weights": ["1", "3"]}),
    )
    models = {"m.onnx": doubled, "n.onnx": lambda taken: (taken[0] + 1,)}
    found = prepare(nodes, {}).run({"x": X}, ("y", "b", "x"), models)
    assert found["y"].tolist() == ((X * 4 + (X + 1) * 3) / 4).tolist()
    assert found["b"].tolist() == (X * 4).tolist()
    assert found["x"] is X
    assert (model_files(nodes), step_files(nodes)) == (("m.onnx", "n.onnx"), ())


def test_a_tensor_is_let_go_when_no_later_node_takes_it() -> None:
    seen: list[weakref.ref[np.ndarray]] = []
    alive: list[bool] = []

    def watch(taken: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        found = taken[0] + 1
        alive.extend(ref() is not None for ref in seen[:-1])
        seen.append(weakref.ref(found))
        return (found,)

    nodes = tuple(Node("model", (f"t{i}",), (f"t{i + 1}",), "m") for i in range(4))
    found = prepare(nodes, {}).run({"t0": X}, ("t4", "t1"), {"m": watch})
    assert alive == [True, True, False]  # t1 is an output; t2 is gone when the fourth runs
    assert found["t4"].tolist() == (X + 4).tolist()


def test_the_client_is_to_blame_only_before_a_model() -> None:
    crop = {"shape": [2]}
    before = (Node("reshape", ("x",), ("a",), settings=crop), Node("model", ("a",), ("y",), "m"))
    after = (Node("model", ("x",), ("a",), "m"), Node("reshape", ("a",), ("y",), settings=crop))
    for nodes, blame in ((before, True), (after, False)):
        with pytest.raises(StepFailed) as caught:
            prepare(nodes, {}).run({"x": X}, ("y",), {"m": doubled})
        assert caught.value.input_is_to_blame is blame


def test_a_model_may_say_that_it_cannot_work_on_what_it_got() -> None:
    def picky(taken: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        raise BadInput("takes 4 numbers")

    one, two = Node("model", ("x",), ("a",), "picky"), Node("model", ("x",), ("b",), "m")
    behind = Node("model", ("b",), ("a",), "picky")
    models = {"picky": picky, "m": doubled}
    for nodes, blame in (((one,), True), ((two, behind), False), ((two, one), True)):
        with pytest.raises(StepFailed, match=r"\(model\) takes 4 numbers") as caught:
            prepare(nodes, {}).run({"x": X}, ("a",), models)
        assert caught.value.input_is_to_blame is blame


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("teleport", ("x",), ("y",)), "no such step"),
        (Node("scale", ("x", "x"), ("y",)), "takes 1 to 1 tensors, has 2"),
        (Node("scale", ("x",), ("y", "z")), "gives 1 to 1 tensors, has 2"),
        (Node("scale", ("x",), ("y",), "f"), "takes no file"),
        (Node("words", ("x",), ("y",), settings={"length": 3}), "needs a file"),
        (Node("scale", ("x",), ("y",), settings={"by": "2"}), "unknown field 'by'"),
        (Node("scale", ("x",), ("y",), settings={"factor": 2}), "expected a string, found int"),
        (Node("top_k", ("x",), ("y",), settings={"k": True}), "expected an integer, found bool"),
        (Node("scale", ("x",), ("y",), settings={"factor": {"a": []}}), "expected a string"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_that_cannot_run_is_named_before_anything_runs(node: Node, says: str) -> None:
    with pytest.raises(Malformed, match=rf"node 1 \({node.op}\).*{says}"):
        prepare((scale("w", "x"), node), {"f": b"a\n"})


def test_what_is_held_at_one_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that are each small enough, and that a last node takes all of."""
    monkeypatch.setattr(graph, "MAX_HELD", 1_000_000)  # so that the test itself needs little
    big = {"top": 199, "left": 199}
    nodes = [Node("pad", ("x",), (f"p{i}",), settings=big) for i in range(20)]
    crop = {"height": 1, "width": 1}
    ends = [Node("centre_crop", (f"p{i}",), (f"y{i}",), settings=crop) for i in range(20)]
    x = np.zeros((1, 1, 1, 3), np.uint8)
    with pytest.raises(StepFailed, match=r"node 8 \(pad\) leaves 1080003 bytes") as caught:
        prepare((*nodes, *ends), {}).run({"x": x}, ("y0",), {})
    assert caught.value.input_is_to_blame
    paired = tuple(node for pair in zip(nodes, ends, strict=True) for node in pair)
    assert prepare(paired, {}).run({"x": x}, ("y19",), {})["y19"].shape == (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("op", "settings"),
    [
        ("centre_crop", {"height": 1, "width": 90}),
        ("split", {"sizes": [1, 89], "axis": 1}),
        ("frames", {"length": 8, "hop": 8}),
        ("top_k", {"k": 1}),
    ],
)
def test_a_small_part_does_not_keep_the_large_tensor_that_it_was(
    op: str, settings: dict[str, object]
) -> None:
    x = np.zeros((1, 90, 90, 1) if op == "centre_crop" else (1, 90), np.float32)
    node = Node(op, ("x",), ("y",), settings=settings)
    y = prepare((node,), {}).run({"x": x}, ("y",), {})["y"]
    assert not np.shares_memory(x, y)


def test_a_program_of_many_nodes_is_quick() -> None:
    nodes = tuple(scale(f"t{i}", f"t{i + 1}", "1") for i in range(MAX_NODES))
    found = prepare(nodes, {}).run({"t0": X}, (f"t{MAX_NODES}",), {})
    assert found[f"t{MAX_NODES}"].tolist() == X.tolist()


@pytest.mark.parametrize("op", STEPS)
@pytest.mark.parametrize(
    "x",
    [
        np.zeros((), np.float32),
        np.zeros((0,), np.float32),
        np.zeros((0, 0, 0, 0), np.uint8),
        np.zeros((1, 0), np.int64),
        np.zeros((2, 3, 4, 5, 6), np.float32),
        np.zeros((1, 1, 1, 3), bool),
        np.full((2, 5), np.nan, np.float32),
        np.full((2, 5, 4), np.inf, np.float64),
        np.array([["text"]], object),
        np.array([], object),
        np.full((1, 4), 2**63, np.uint64),
        np.full((1, 4, 4, 3), 65504, np.float16),
    ],
    ids=lambda x: f"{x.dtype}{list(x.shape)}",
)
def test_a_step_gives_something_or_says_why_not(op: str, x: np.ndarray) -> None:
    """Whatever it is given: no exception of another kind, no warning."""
    step = STEPS[op]
    named = tuple(f"x{i}" for i in range(step.takes.start))
    file = "f" if step.file is File.MUST else ""
    node = Node(op, named, ("y",), file, LEAST.get(op, {}))
    graph = prepare((node,), {"f": b"[PAD]\n[UNK]\n[CLS]\n[SEP]"})
    failure: StepFailed | None = None
    try:
        found = graph.run(dict.fromkeys(named, x), ("y",), {})
    except StepFailed as error:
        failure = error
    if failure is None:
        assert found["y"].shape[:1] == x.shape[:1]  # a row for a row
    else:
        assert str(failure).startswith(f"node 0 ({op}) ")
        assert failure.input_is_to_blame
