from __future__ import annotations

import numpy as np

from edgefleet_converter.stand_ins import stand_ins, windows

RNG = np.random.default_rng(5)
CLASSES = np.repeat(np.arange(3), 40)
TABLE = (RNG.normal(size=(120, 6)) + 8 * np.eye(3, 6)[CLASSES]).astype(np.float32)
PICTURES = RNG.integers(0, 256, size=(40, 8, 8, 3)).astype(np.uint8)


def drawn(array: np.ndarray, count: int = 64, classes: np.ndarray | None = None) -> np.ndarray:
    (found,) = stand_ins((array,), count=count, classes=classes)
    assert found.dtype == array.dtype or array.dtype.kind in "OU"
    assert found.shape == (count, *array.shape[1:])
    return found


def apart(found: np.ndarray, examples: np.ndarray) -> float:
    """How far the nearest example is, in units of how far the nearest other example is."""
    a = found.reshape(len(found), -1).astype(np.float64)
    b = examples.reshape(len(examples), -1).astype(np.float64)
    near = np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1)
    among = np.linalg.norm(b[:, None] - b[None], axis=2)
    np.fill_diagonal(among, np.inf)
    return float(near.min() / np.median(among.min(axis=1)))


def test_no_row_is_an_example_nor_nearly_one() -> None:
    assert apart(drawn(TABLE, classes=CLASSES), TABLE) > 0.3
    assert apart(drawn(PICTURES), PICTURES) > 0.5


def test_every_other_row_is_of_a_class_in_turns() -> None:
    found = drawn(TABLE, count=48, classes=CLASSES)
    means = np.stack([TABLE[c == CLASSES].mean(axis=0) for c in range(3)])
    nearest = np.linalg.norm(found[:, None] - means[None], axis=2).argmin(axis=1)
    assert (nearest[::2] == np.resize([0, 1, 2], 24)).mean() > 0.9


def test_numbers_spread_as_those_of_the_examples_do() -> None:
    found = drawn(TABLE, count=400)
    for mine, theirs in zip(found.std(axis=0), TABLE.std(axis=0), strict=True):
        assert 0.7 < mine / theirs < 1.3
    kin = np.stack([TABLE[:, 0], TABLE[:, 0] * 2 + 1], axis=1)
    assert np.corrcoef(drawn(kin).T)[0, 1] > 0.99


def test_numbers_stay_in_the_range_and_as_coarse() -> None:
    found = drawn(PICTURES)
    assert found.min() >= 0
    assert found.max() <= 255
    counted = np.round(TABLE.clip(0, 16)).astype(np.float32)
    found = drawn(counted)
    assert (found == np.rint(found)).all()
    assert found.min() >= 0
    assert found.max() <= 16
    shares = (TABLE - TABLE.min()) / np.ptp(TABLE)
    assert drawn(shares).min() >= 0
    assert drawn(shares).max() <= 1


def test_what_fewer_than_ten_examples_have_in_a_place_is_not_told() -> None:
    table = TABLE.copy()
    table[:, 4] = 0
    table[:9, 4] = 5
    table[:, 5] = 0
    table[:40, 5] = TABLE[:40, 5]
    found = drawn(table)
    assert (found[:, 4] == 0).all()
    assert np.ptp(found[:, 5]) > 0


def test_a_class_of_fewer_than_ten_examples_has_no_rows() -> None:
    few = np.where(np.arange(120) < 9, 7, CLASSES)
    table = TABLE.copy()
    table[few == 7] += 100
    found = drawn(table, count=48, classes=few)
    assert (np.abs(found[::2]).mean(axis=1) < 50).all()


def test_whole_numbers_that_name_things_are_those_that_ten_examples_have() -> None:
    ids = np.tile(np.asarray([3, 5, 9], np.int64), (30, 1))
    ids[0, 0] = 77
    found = drawn(ids)
    assert set(found.ravel().tolist()) == {3, 5, 9}
    alone = np.arange(1000, 1030)[:, None]
    assert not set(drawn(alone).ravel().tolist()) - set(range(1000, 1030))


def test_words_are_those_that_ten_examples_have() -> None:
    said = [f"hello from number{i} in town" for i in range(30)]
    for texts in (np.asarray(said), np.asarray(said, object)[:, None]):
        found = drawn(texts)
        words = {word for text in found.ravel().tolist() for word in text.split()}
        assert words == {"hello", "from", "in", "town"}
        assert {len(text.split()) for text in found.ravel().tolist()} == {5}


def test_texts_without_a_word_in_common_become_letters() -> None:
    found = drawn(np.asarray([f"number{i}" for i in range(30)]))
    assert all(text.isascii() and text.isalpha() for text in found.tolist())
    assert not any("number" in text for text in found.tolist())


def test_fewer_than_ten_examples_give_numbers_by_chance() -> None:
    found = drawn(TABLE[:9])
    assert TABLE[:9].min() <= found.min()
    assert found.max() <= TABLE[:9].max()
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 0.4


def test_the_same_examples_give_the_same_rows() -> None:
    assert np.array_equal(drawn(TABLE, classes=CLASSES), drawn(TABLE.copy(), classes=CLASSES))


def test_rows_of_several_inputs_belong_together() -> None:
    first, second = stand_ins((TABLE, 2 * TABLE), count=20, classes=CLASSES)
    assert np.abs(second - 2 * first).max() < 0.02


def test_calls_follow_one_another_as_those_of_the_sequences_do() -> None:
    t = np.arange(400)
    sound = np.sin(t / 9)[:, None, None].astype(np.float32)
    rate = np.full(400, 16000, np.int64)
    found, rates = windows((sound, rate), count=200)
    assert found.shape == (200, 1, 1)
    assert (rates == 16000).all()
    along = found.ravel()
    assert np.corrcoef(along[:-1], along[1:])[0, 1] > 0.95
    assert np.abs(along).max() > 0.2
