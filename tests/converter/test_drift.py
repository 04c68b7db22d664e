"""A drift reference holds no single example, and what it was made of has not drifted from it."""

from __future__ import annotations

import numpy as np
import pytest

from edgefleet_contract import drift
from edgefleet_contract.bundle import Digest, Role, TensorSpec
from edgefleet_contract.drift import Window
from edgefleet_contract.drift_reference import Kind, Reference, parse_reference, render_reference
from edgefleet_converter.drift import refer
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recipe_drift import Drift
from edgefleet_processing.drift import count, flat, values

CHANCE = np.random.default_rng(7)
TABLE = np.column_stack(
    (CHANCE.normal(5, 2, 400), CHANCE.integers(0, 3, 400), np.full(400, 3.0))
).astype(np.float32)
PICTURES = CHANCE.integers(0, 256, (60, 8, 8, 3)).astype(np.uint8)
CHANCES = CHANCE.dirichlet(np.full(4, 0.3), 400).astype(np.float32)


def made(x: np.ndarray, y: np.ndarray, labels: tuple[str, ...] = (), least: int = 10) -> Reference:
    spec_x, spec_y = TensorSpec("x", "float32", (-1,)), TensorSpec("y", "float32", (-1,))
    found = refer([spec_x], (x,), [spec_y], (y,), labels=labels, wish=Drift(least_examples=least))
    assert found is not None
    return found


def seen(
    reference: Reference, x: np.ndarray, y: np.ndarray, labels: tuple[str, ...] = ()
) -> Window:
    places = {text: i for i, text in enumerate(labels)}
    counted = tuple(
        count(one, values(flat(array), one.kind, one.column, places))
        for array, part in ((x, reference.inputs), (y, reference.outputs))
        for one in part
    )
    return Window(Digest("0" * 64), len(x), counted)


def test_what_it_was_made_of_is_counted_as_it_says() -> None:
    reference = made(TABLE, CHANCES)
    window = seen(reference, TABLE, CHANCES)
    for before, now in zip(reference.distributions, window.counted, strict=True):
        assert now.bins == before.counts
    assert all(one.psi == pytest.approx(0) for one in drift.compare(reference, window))
    assert parse_reference(render_reference(reference)) == reference


def test_a_table_is_counted_by_column_and_scores_as_decisions() -> None:
    reference = made(TABLE, CHANCES)
    assert [one.column for one in reference.inputs] == [0, 1, 2]
    assert [one.kind for one in reference.outputs] == [Kind.CLASS, Kind.TOP, Kind.ENTROPY]
    assert len(render_reference(reference)) < 3000


@pytest.mark.parametrize("least", [5, 10, 37])
def test_no_bin_tells_of_fewer_examples_than_it_must(least: int) -> None:
    reference = made(TABLE, CHANCES, least=least)
    for one in reference.distributions:
        assert all(n == 0 or n >= least for n in one.counts), one
        if one.kind is not Kind.CLASS and one.column == 0:
            column = TABLE[:, 0]
            assert one.low is not None
            assert one.high is not None
            assert (column < one.low).sum() >= least - 2  # rounded by a thousandth of the range
            assert (column > one.high).sum() >= least - 2


def test_no_edge_is_a_value_of_the_data() -> None:
    (first, *_) = made(TABLE, CHANCES).inputs
    assert not set(np.float32(first.edges).tolist()) & set(TABLE[:, 0].tolist())


def test_pictures_are_counted_as_a_whole_and_by_examples() -> None:
    one_bright = np.zeros((60, 8, 8, 3), np.uint8)
    one_bright[0] = 255  # one example has 192 values that no other has
    (pooled,) = made(one_bright, np.zeros((60, 1), np.float32)).inputs
    assert pooled.column == -1
    assert pooled.edges[-1] < 0
    assert pooled.counts == (0, 60 * 192)


def test_a_constant_that_moves_either_way_is_seen() -> None:
    reference = made(TABLE, CHANCES)
    for by in (-1, 1):
        moved = TABLE.copy()
        moved[:, 2] += by
        window = seen(reference, moved, CHANCES)
        far = [one for one in drift.compare(reference, window) if one.is_above(drift.MAJOR)]
        assert [one.column for one in far] == [2]


def test_rare_classes_are_one_bin_and_labels_are_known_by_name() -> None:
    labels = ("ant", "bee", "cat", "dog")
    names = np.asarray(["ant"] * 200 + ["bee"] * 180 + ["cat"] * 12 + ["dog"] * 8, object)
    reference = made(TABLE, names.reshape(-1, 1), labels)
    (one,) = reference.outputs
    assert (one.classes, one.counts) == ((0, 1), (200, 180, 20))
    assert seen(reference, TABLE, names.reshape(-1, 1), labels).counted[-1].bins == one.counts


def test_texts_are_counted_by_their_length() -> None:
    texts = np.asarray([("x" * (i % 20)) for i in range(100)], object).reshape(-1, 1)
    (one,) = made(texts, np.zeros((100, 1), np.float32)).inputs
    assert one.kind is Kind.LENGTH
    assert one.high == 18  # ten have 18 characters or more


def test_calls_of_a_sequence_are_rows() -> None:
    calls = TABLE.reshape(400, 1, 3)
    spec = TensorSpec("x", "float32", (1, 3))
    found = refer([spec], (calls,), [], (), labels=(), wish=Drift(), calls=True)
    assert found is not None
    assert found.inputs == made(TABLE, CHANCES).inputs


def test_too_few_examples_and_a_wish_for_none_make_none() -> None:
    spec = TensorSpec("x", "float32", (-1, 3))
    few = (TABLE[:19],)
    assert refer([spec], few, [], (), labels=(), wish=Drift()) is None
    assert refer([spec], (TABLE,), [], (), labels=(), wish=Drift(enabled=False)) is None


def test_a_bundle_has_one_for_each_variant_and_says_what_kernels_differ_by(built: Built) -> None:
    roles = {file.path: file for file in built.manifest.files}
    for variant, told in zip(built.manifest.variants, built.report.variants, strict=True):
        assert variant.drift is not None
        file = roles[variant.drift]
        assert file.role is Role.DRIFT
        assert file in built.manifest.files_for(variant)
        assert file.size == told.drift_bytes
        assert file.size < 4096
        reference = parse_reference((built.path / variant.drift).read_bytes())
        assert {one.kind for one in reference.outputs} == {Kind.CLASS, Kind.TOP, Kind.ENTROPY}
        assert told.strays is not None
        assert {"plain", "threads", "single"} <= set(told.strays)
        worst = max(stray.vectors for stray in told.strays.values())
        assert told.golden_floor is not None
        assert told.golden_max_abs_err >= max(told.golden_floor, 2 * worst)
        assert told.golden_max_abs_err < max(told.golden_floor, 2 * worst) + 3e-6
