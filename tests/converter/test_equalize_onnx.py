"""Equalization keeps the function, on nets that are drawn by chance and on real ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_contract.bundle import Format
from edgefleet_converter.metrics import relative_err
from edgefleet_converter.passes.equalize_onnx import find_links, rescale
from edgefleet_converter.passes.observe_onnx import all_ranges, channel_peaks
from edgefleet_converter.runners import open_model, run_all
from edgefleet_converter.search.candidate import Ranges
from tests.converter import models
from tests.converter.models import graph, one, weights


def answers(model: onnx.ModelProto, folder: Path, inputs: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "m.onnx")
    (found,) = run_all(open_model(folder / "m.onnx", Format.ONNX), (inputs,))
    return np.asarray(found)


def equalized(model: onnx.ModelProto, inputs: np.ndarray, alpha: float) -> tuple[int, object]:
    links = find_links(model)
    axes = {one.tensor: one.axis for link in links for one in link.consumers}
    peaks = channel_peaks(model, axes, (inputs,))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return rescale(copy, links, peaks, alpha), copy


def dense(seed: int, widths: list[int], act: str, kinds: list[str]) -> onnx.ModelProto:
    """A chain of dense layers whose channels are of very different sizes."""
    rng = np.random.default_rng(seed)
    constants, nodes, last = {}, [], "x"
    for i, (a, b) in enumerate(pairwise(widths)):
        sizes = np.exp(rng.uniform(-3, 3, b))
        w = (rng.normal(size=(a, b)) * sizes / a**0.5).astype(np.float32)
        bias = (rng.normal(size=b) * sizes).astype(np.float32)
        end = "y" if i == len(widths) - 2 else f"h{i}"
        mid = f"l{i}" if end != "y" else "y"
        match kinds[i]:
            case "MatMul":
                constants |= {f"w{i}": w, f"b{i}": bias}
                nodes.append(one("MatMul", [last, f"w{i}"], f"m{i}"))
                nodes.append(one("Add", [f"b{i}", f"m{i}"], mid))
            case "transposed":
                constants |= {f"w{i}": np.ascontiguousarray(w.T), f"b{i}": bias}
                nodes.append(one("Gemm", [last, f"w{i}", f"b{i}"], mid, transB=1))
            case _:
                constants |= {f"w{i}": w, f"b{i}": bias.reshape(1, -1)}
                nodes.append(one("Gemm", [last, f"w{i}", f"b{i}"], mid))
        if end != "y":
            nodes.append(one(act, [mid], end))
        last = end
    return graph(nodes, shape=["n", widths[0]], gives=["n", widths[-1]], constants=constants)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    widths=st.lists(st.integers(2, 9), min_size=3, max_size=5),
    act=st.sampled_from(["Relu", "LeakyRelu", "Identity"]),
    kinds=st.lists(st.sampled_from(["Gemm", "MatMul", "transposed"]), min_size=4, max_size=4),
    alpha=st.sampled_from([0.5, 0.75, 1.0]),
)
def test_dense_nets_keep_their_function(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    widths: list[int],
    act: str,
    kinds: list[str],
    alpha: float,
) -> None:
    folder = tmp_path_factory.mktemp("net")
    model = dense(seed, widths, act, kinds)
    inputs = models.examples(40, widths[0], seed=seed)
    assert len(find_links(model)) == len(widths) - 2
    done, copy = equalized(model, inputs, alpha)  # a layer with one live channel has no other
    assert done <= len(widths) - 2
    expected = answers(model, folder, inputs)
    scale = max(1.0, float(np.abs(expected).max()))
    assert relative_err(expected / scale, answers(copy, folder, inputs) / scale) < 1e-5


def image_net(*, group: int, pool: str, flat: str) -> onnx.ModelProto:
    """Conv, depthwise or grouped Conv, pool, flatten, Gemm."""
    rng = np.random.default_rng(3)
    sizes = np.exp(rng.uniform(-3, 3, 6)).astype(np.float32)
    side = 1 if pool.startswith("Global") else 4
    given = {} if side == 1 else {"kernel_shape": [2, 2], "strides": [2, 2]}
    flatten = one("Flatten", ["p"], "f") if flat == "Flatten" else one("Reshape", ["p", "to"], "f")
    constants = {
        "w1": weights(6, 2, 3, 3, seed=1) * sizes.reshape(-1, 1, 1, 1),
        "b1": weights(6, seed=2) * sizes,
        "w2": weights(6, 6 // group, 3, 3, seed=3) * sizes[::-1].reshape(-1, 1, 1, 1),
        "w3": weights(6 * side * side, 5, seed=4),
    }
    if flat != "Flatten":
        constants["to"] = np.asarray([0, -1], np.int64)
    return graph(
        [
            one("Conv", ["x", "w1", "b1"], "c1", pads=[1, 1, 1, 1]),
            one("Relu", ["c1"], "r1"),
            one("Conv", ["r1", "w2"], "c2", group=group, pads=[1, 1, 1, 1]),
            one("LeakyRelu", ["c2"], "r2", alpha=0.1),
            one(pool, ["r2"], "p", **given),
            flatten,
            one("Gemm", ["f", "w3"], "y"),
        ],
        shape=["batch", 2, 8, 8],
        gives=["batch", 5],
        constants=constants,
    )


@pytest.mark.parametrize("group", [1, 2, 6])
@pytest.mark.parametrize(
    ("pool", "flat"),
    [("MaxPool", "Flatten"), ("AveragePool", "Reshape"), ("GlobalAveragePool", "Flatten")],
)
def test_image_nets_keep_their_function_and_every_layer_is_rescaled(
    group: int, pool: str, flat: str, tmp_path: Path
) -> None:
    model = image_net(group=group, pool=pool, flat=flat)
    inputs = models.examples(20, 2, 8, 8)
    done, copy = equalized(model, inputs, 0.5)
    assert done == 2
    assert relative_err(answers(model, tmp_path, inputs), answers(copy, tmp_path, inputs)) < 1e-5


def test_channels_come_out_more_even(tmp_path: Path) -> None:
    model = image_net(group=1, pool="MaxPool", flat="Flatten")
    inputs = models.examples(20, 2, 8, 8)
    _, copy = equalized(model, inputs, 0.75)
    spread = []
    for each in (model, copy):
        peaks = channel_peaks(each, {"r1": 1, "r2": 1}, (inputs,))
        spread.append([float(peak.max() / peak.min()) for peak in peaks.values()])
    assert all(after < before / 3 for before, after in zip(*spread, strict=True)), spread


def test_a_norm_is_rescaled_for_all_that_it_feeds(tmp_path: Path) -> None:
    sizes = np.exp(np.linspace(-3, 3, 8)).astype(np.float32)
    model = graph(
        [
            one("LayerNormalization", ["x", "g", "b"], "n", axis=-1),
            one("MatMul", ["n", "q"], "a"),
            one("MatMul", ["n", "k"], "c"),
            one("Add", ["a", "c"], "y"),
        ],
        shape=["batch", 3, 8],
        gives=["batch", 3, 8],
        constants={
            "g": sizes,
            "b": weights(8, seed=1),
            "q": weights(8, 8, seed=2),
            "k": weights(8, 8, seed=3),
        },
    )
    inputs = models.examples(20, 3, 8)
    done, copy = equalized(model, inputs, 0.5)
    assert done == 1
    assert relative_err(answers(model, tmp_path, inputs), answers(copy, tmp_path, inputs)) < 1e-5


KEPT = {
    "an output of the graph": lambda: (
        [one("Gemm", ["x", "a"], "y"), one("Gemm", ["y", "b"], "z")],
        ["z"],
    ),
    "a residual sum": lambda: (
        [one("Gemm", ["x", "a"], "h"), one("Gemm", ["h", "b"], "k"), one("Add", ["h", "k"])],
        [],
    ),
    "a curve": lambda: (
        [one("Gemm", ["x", "a"], "h"), one("Sigmoid", ["h"], "s"), one("Gemm", ["s", "b"])],
        [],
    ),
    "shared weights": lambda: (
        [one("Gemm", ["x", "a"], "h"), one("Relu", ["h"], "s"), one("Gemm", ["s", "a"])],
        [],
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_would_change_the_function_is_left_alone(name: str) -> None:
    nodes, shown = KEPT[name]()
    constants = {"a": weights(4, 4, seed=1), "b": weights(4, 4, seed=2)}
    model = graph(nodes, shape=["n", 4], gives=["n", 4], constants=constants)
    for output in shown:
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(output, models.FLOAT, ["n", 4])
        )
    assert find_links(model) == ()


def test_percentiles_leave_out_exactly_the_outliers() -> None:
    model = graph([one("Relu", ["x"], "y")], shape=["n", 100], gives=["n", 100])
    values = np.linspace(-1, 1, 200_000, dtype=np.float32)
    values[:2] = -50.0
    values[-20:] = np.arange(100, 120)
    mixed = np.random.default_rng(0).permutation(values).reshape(2000, 100)
    found = all_ranges(model, ["x", "y"], (mixed,))
    assert found[Ranges.MINMAX]["x"] == (-50.0, 119.0)
    assert found[Ranges.P99_999]["x"] == (pytest.approx(values[2]), 117.0)
    low, high = found[Ranges.P99_99]["x"]
    assert low == pytest.approx(values[20])
    assert high == pytest.approx(values[-21])
    assert found[Ranges.MINMAX]["y"][0] == 0.0
