from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto, helper, numpy_helper

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.prune_onnx import (
    Floats,
    all_weights,
    hard_threshold,
    lambda_for,
    lambda_grid,
    prune,
    weight_names,
)
from tests.converter.models import cnn, graph, mlp, one, weights

finite = st.floats(-1e6, 1e6, width=32)
tensors = arrays(np.float32, array_shapes(max_dims=3, max_side=6), elements=finite)
lambdas = st.floats(0, 1e12)


@given(tensors, lambdas, finite)
def test_each_weight_minimises_the_objective(w: Floats, lam: float, other: float) -> None:
    """Neither keeping it, nor zero, nor any other value is better than what came out."""

    def objective(v: np.ndarray) -> np.ndarray:
        step = v.astype(np.float64) - w.astype(np.float64)
        return np.asarray(step**2 / 2 + lam * (v != 0))

    found = objective(hard_threshold(w, lam))
    for v in (w, np.zeros_like(w), np.full_like(w, other)):
        assert (found <= objective(v)).all()


@given(tensors, lambdas, lambdas)
def test_a_larger_lambda_keeps_a_subset(w: Floats, a: float, b: float) -> None:
    few, many = hard_threshold(w, max(a, b)), hard_threshold(w, min(a, b))
    assert ((few == 0) | (few == many)).all()
    assert np.count_nonzero(few) <= np.count_nonzero(many)


@given(tensors)
def test_lambda_zero_changes_no_bit(w: Floats) -> None:
    assert hard_threshold(w, 0.0).tobytes() == w.tobytes()


@given(tensors, lambdas)
def test_a_second_step_changes_nothing(w: Floats, lam: float) -> None:
    once = hard_threshold(w, lam)
    assert hard_threshold(once, lam).tobytes() == once.tobytes()


@given(tensors, st.floats(0, 1))
def test_the_lambda_of_a_share_zeroes_that_share_and_no_lesser_one_does(
    w: Floats, share: float
) -> None:
    lam, had = lambda_for(w, share), np.count_nonzero(w)
    wanted = round(share * had)
    assert had - np.count_nonzero(hard_threshold(w, lam)) >= wanted
    less = float(np.nextafter(lam, 0.0))
    assert wanted == 0 or had - np.count_nonzero(hard_threshold(w, less)) < wanted


@given(tensors, st.integers(2, 20))
def test_a_grid_goes_from_no_weight_to_all_of_them(w: Floats, points: int) -> None:
    grid = lambda_grid(w, points)
    assert list(grid) == sorted(grid)
    assert len(grid) <= points
    assert np.count_nonzero(hard_threshold(w, grid[0])) == np.count_nonzero(w)
    assert np.count_nonzero(hard_threshold(w, grid[-1])) == 0


def test_a_grid_is_even_in_the_logarithm() -> None:
    steps = np.diff(np.log(lambda_grid(weights(50, 50), 12)[1:]))
    assert len(steps) == 10
    assert np.allclose(steps, steps[0])


def test_a_grid_spends_no_points_on_what_weight_decay_left() -> None:
    w = np.concatenate([weights(50, 50).ravel(), np.full(5000, 1e-30, np.float32)])
    grid = lambda_grid(w, 12)
    assert grid[1] >= 1e-6 * grid[-1]


def values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_one_threshold_holds_for_all_layers_and_only_for_weights() -> None:
    model = cnn()
    made = prune(model, 0.02)
    before, after = values(model), values(made.model)
    assert weight_names(model) == ("w1", "w2", "w3")
    for name in before:
        pruned = hard_threshold(before[name], 0.02) if name[0] == "w" else before[name]
        assert np.array_equal(after[name], pruned), name
    assert made.weights == before["w1"].size + before["w2"].size + before["w3"].size
    assert made.norm0 == np.count_nonzero(all_weights(made.model)) < made.weights
    onnx.checker.check_model(made.model, full_check=True)


def test_the_model_that_went_in_is_untouched() -> None:
    model = mlp()
    raw = model.SerializeToString()
    prune(model, 1e9)
    assert model.SerializeToString() == raw


def test_weights_that_another_operator_reads_are_left_alone() -> None:
    model = graph(
        [
            one("MatMul", ["x", "w"], "a"),
            one("MatMul", ["a", "own"], "b"),
            one("ReduceSum", ["w"], "s", keepdims=1),
            one("Add", ["b", "s"], "y"),
        ],
        shape=["batch", 4],
        gives=["batch", 4],
        constants={"w": weights(4, 4), "own": weights(4, 4, seed=1)},
    )
    assert weight_names(model) == ("own",)


def test_weights_that_an_inner_graph_reads_are_left_alone() -> None:
    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [out])

    model = graph(
        [
            one("MatMul", ["x", "w"], "a"),
            one("MatMul", ["a", "own"], "b"),
            one("ReduceSum", ["b"], "n", keepdims=0),
            one("Cast", ["n"], "c", to=TensorProto.BOOL),
            one(
                "If",
                ["c"],
                "z",
                then_branch=branch("t", helper.make_node("Add", ["b", "w"], ["y"])),
                else_branch=branch("e", helper.make_node("Identity", ["b"], ["y"])),
            ),
            one("Identity", ["z"], "y"),
        ],
        shape=[4, 4],
        gives=[4, 4],
        constants={"w": weights(4, 4), "own": weights(4, 4, seed=1)},
    )
    assert weight_names(model) == ("own",)


def test_a_model_without_weights_is_refused() -> None:
    model = graph([one("Relu", ["x"], "y")], shape=["batch", 4], gives=["batch", 4])
    with pytest.raises(OperatorError, match="nothing to prune"):
        prune(model, 0.1)


def test_weights_in_another_file_are_refused() -> None:
    model = mlp()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(OperatorError, match="in another file"):
        prune(model, 0.1)
