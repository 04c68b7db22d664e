"""Programs in a manifest: what is read, what is refused, and that old bundles read as ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_contract import bundle as b
from edgefleet_contract.errors import Malformed
from edgefleet_contract.graph import MAX_NODES, Node, Program, StatePair, check_graph

X, Y = b.TensorSpec("x", "float32", (-1, 4)), b.TensorSpec("y", "float32", (-1, 2))
H, HN = b.TensorSpec("h", "float32", (-1, 8)), b.TensorSpec("hn", "float32", (-1, 8))
MODEL = Node("model", ("x",), ("y",), "v/m.onnx")
NAME = st.text("abcdef", min_size=1, max_size=2)
SETTING = st.recursive(
    st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.text("a1/. é", max_size=6),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def manifest(program: Program | None, **changes: object) -> b.Manifest:
    """A manifest whose only variant has this program."""
    variant = b.Variant(
        name="v",
        format=b.Format.ONNX,
        precision="fp32",
        model="v/m.onnx",
        golden="v/golden.npz",
        max_abs_err_e6=0,
        inputs=(X,),
        outputs=(Y,),
        runtimes={"onnxruntime": "1.19"},
        program=program,
    )
    files = tuple(
        b.BundleFile(path, role, 1, b.sha256(b""), b.sha256(b""))
        for path, role in (
            ("labels.txt", b.Role.LABELS),
            ("v/golden.npz", b.Role.GOLDEN),
            ("v/m.onnx", b.Role.MODEL),
            ("v/n.onnx", b.Role.MODEL),
            ("v/words.txt", b.Role.VOCABULARY),
            ("z.json", b.Role.REPORT),
        )
    )
    return b.Manifest("m", 1, 1, "0.1.0", (replace(variant, **changes),), files)


def refused(program: Program, says: str, **changes: object) -> None:
    with pytest.raises(Malformed, match=says):
        manifest(program, **changes)


def test_a_variant_without_a_program_is_written_as_ever() -> None:
    raw = b.render_manifest(manifest(None))
    assert b"program" not in raw
    assert b.render_manifest(b.parse_manifest(raw)) == raw


@given(st.dictionaries(st.text(max_size=8), SETTING, max_size=4), st.booleans())
@settings(deadline=None)
def test_a_program_is_read_as_it_was_written(found: dict[str, object], hidden: bool) -> None:
    program = Program((MODEL, Node("scale", ("y",), ("z",), settings=found)), (), hidden)
    made = manifest(program)
    raw = b.render_manifest(made)
    assert b.parse_manifest(raw) == made
    assert b.render_manifest(b.parse_manifest(raw)) == raw


def test_a_device_fetches_all_that_a_program_is_made_of() -> None:
    nodes = (
        Node("words", ("x",), ("i",), "v/words.txt"),
        replace(MODEL, inputs=("i",), outputs=("s",)),
        Node("model", ("i",), ("t",), "v/n.onnx"),
        Node("weighted_mean", ("s", "t"), ("y",)),
        Node("labels", ("y",), ("z",), "labels.txt"),
    )
    made = manifest(Program(nodes))
    (variant,) = made.variants
    assert variant.files == ("v/m.onnx", "v/words.txt", "v/n.onnx", "labels.txt")
    fetched = [file.path for file in made.files_for(variant)]
    assert fetched == ["labels.txt", "v/golden.npz", "v/m.onnx", "v/n.onnx", "v/words.txt"]


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ((Node("a", ("b",), ("a",)), Node("b", ("a",), ("b",)), MODEL), "which nothing before it"),
        ((Node("a", ("a",), ("a",)), MODEL), "takes 'a', which nothing before it gives"),
        ((MODEL, Node("a", ("x",), ("y",))), "gives 'y', which is there already"),
        ((MODEL, Node("a", ("y",), ("x",))), "gives 'x', which is there already"),
        ((MODEL, Node("a", ("y",), ("z", "z"))), "gives 'z', which is there already"),
        ((MODEL, Node("a", (), ("z",))), "takes nothing"),
        ((MODEL, Node("a", ("y",), ())), "gives nothing"),
        ((replace(MODEL, outputs=("z",)),), "nothing gives the output 'y'"),
        ((replace(MODEL, file=""),), "names no file"),
        ((replace(MODEL, file="v/n.onnx"),), "is not the first model of its program"),
        ((Node("a", ("x",), ("y",)),), "is not the first model of its program"),
        ((MODEL, Node("model", ("y",), ("z",), "labels.txt")), "is no file for 'model'"),
        ((MODEL, Node("labels", ("y",), ("z",), "v/m.onnx")), "is no file for 'labels'"),
        ((MODEL, Node("labels", ("y",), ("z",), "z.json")), "is no file for 'labels'"),
        ((MODEL, Node("labels", ("y",), ("z",), "v/golden.npz")), "is no file for 'labels'"),
        ((MODEL, Node("labels", ("y",), ("z",), "../x")), "is no file for 'labels'"),
    ],
)
def test_a_graph_that_is_none_is_refused(nodes: tuple[Node, ...], says: str) -> None:
    refused(Program(nodes), says)


def test_64_nodes_are_read_and_65_are_not() -> None:
    def chain(count: int) -> tuple[Node, ...]:
        more = [Node("scale", (f"t{i}",), (f"t{i + 1}",)) for i in range(count - 1)]
        more[0] = replace(more[0], inputs=("y",))
        return (MODEL, *more)

    manifest(Program(chain(MAX_NODES)))
    refused(Program(chain(MAX_NODES + 1)), "65 nodes, at most 64 are run")


def test_tensors_of_one_name_are_refused() -> None:
    refused(Program((MODEL,)), "stands twice", inputs=(X, X))
    refused(Program((MODEL,)), "stands twice", outputs=(Y, Y))


def test_a_long_hostile_name_is_not_repeated_whole() -> None:
    long = "x" * 100_000
    for node in (Node(long, (long,), ("y",)), Node("a", ("x",), (long, long))):
        with pytest.raises(Malformed) as caught:
            check_graph((node,), ("x",), ("y",), "v")
        assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ((StatePair("h", "y"),), "'y' does not fit 'h'"),
        ((StatePair("h", "hn"), StatePair("h", "y")), "stands twice"),
        ((StatePair("q", "hn"),), "is not among what it takes"),
        ((StatePair("h", "hn"), StatePair("x", "y")), "or is all of it"),
    ],
)
def test_a_state_that_is_none_is_refused(state: tuple[StatePair, ...], says: str) -> None:
    node = Node("model", ("x", "h"), ("y", "hn"), "v/m.onnx")
    outputs = (replace(Y, dtype="int64"), HN)
    refused(Program((node,), state), says, inputs=(X, H), outputs=outputs)


def test_what_clients_send_and_get_is_less_the_state() -> None:
    node = Node("model", ("x", "h"), ("y", "hn"), "v/m.onnx")
    program = Program((node,), (StatePair("h", "hn"),))
    (variant,) = manifest(program, inputs=(X, H), outputs=(Y, HN)).variants
    assert (variant.public_inputs, variant.public_outputs) == ((X,), (Y,))
    assert program.is_stateful


@given(st.lists(st.tuples(st.lists(NAME, max_size=3), st.lists(NAME, max_size=3)), max_size=8))
@settings(max_examples=300, deadline=None)
def test_what_is_accepted_can_be_run_in_its_order(
    found: list[tuple[list[str], list[str]]],
) -> None:
    """Any graph: either refused, or each tensor is there when it is taken, and named once."""
    nodes = tuple(Node("a", tuple(taken), tuple(given)) for taken, given in found)
    try:
        check_graph(nodes, ("a",), ("b",), "v")
    except Malformed:
        return
    there = ["a"]
    for node in nodes:
        assert node.inputs
        assert node.outputs
        assert set(node.inputs) <= set(there)
        there += node.outputs
    assert len(there) == len(set(there))
    assert "b" in there
