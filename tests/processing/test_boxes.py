"""Boxes: formats that are each other's inverse, and suppression against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_processing import StepFailed
from tests.processing.steps import many, one, ready

FORMATS = ("xyxy", "yxyx", "cxcywh", "xywh")


def crowd(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [1, B, 4], xyxy, of whole numbers, close together; scores [1, B, C] with ties."""
    chance = np.random.default_rng(seed)
    low = chance.integers(0, 12, (1, count, 2))
    boxes = np.concatenate([low, low + chance.integers(0, 9, (1, count, 2))], -1)
    return boxes.astype(np.float32), (chance.integers(0, 9, (1, count, classes)) / 8).astype("f4")


def brute(
    boxes: np.ndarray, scores: np.ndarray, iou: float, score: float, keep: int, agnostic: bool
) -> list[tuple[int, int]]:
    """(box, class), best first: pixels counted one by one, every pair compared."""

    def pixels(box: np.ndarray) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = map(int, box)
        return set(itertools.product(range(x0, x1), range(y0, y1)))

    best = [(float(row.max()), int(row.argmax())) for row in scores]
    order = sorted((i for i in range(len(boxes)) if best[i][0] >= score), key=lambda i: -best[i][0])
    kept: list[int] = []
    for i in order:
        mine = pixels(boxes[i])

        def overlaps(j: int, i: int = i, mine: set[tuple[int, int]] = mine) -> bool:
            theirs = pixels(boxes[j])
            shared, either = len(mine & theirs), len(mine | theirs)
            return shared > iou * either and (agnostic or best[i][1] == best[j][1])

        if not any(overlaps(j) for j in kept):
            kept.append(i)
    return [(i, best[i][1]) for i in kept[:keep]]


@given(
    st.integers(0, 10**6),
    st.integers(0, 25),
    st.integers(1, 3),
    st.sampled_from(["0", "0.25", "0.5", "1"]),
    st.sampled_from(["0", "0.5"]),
    st.integers(1, 8),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_suppression_is_what_brute_force_finds(
    seed: int, count: int, classes: int, iou: str, score: str, keep: int, agnostic: bool
) -> None:
    boxes, scores = crowd(seed, count, classes)
    more = {"iou": iou, "score": score, "keep": keep, "agnostic": agnostic}
    found, best, of, number = many("suppress", boxes, scores, **more)
    wanted = brute(boxes[0], scores[0], float(iou), float(score), keep, agnostic)
    n = len(wanted)
    assert number.tolist() == [n]
    assert of[0].tolist() == [c for _, c in wanted] + [-1] * (keep - n)
    assert found[0, :n].tolist() == [boxes[0, i].tolist() for i, _ in wanted]
    assert best[0, :n].tolist() == [scores[0, i].max() for i, _ in wanted]
    assert not found[0, n:].any()
    assert not best[0, n:].any()


@pytest.mark.parametrize("form", FORMATS)
def test_suppression_reads_every_format_and_keeps_it(form: str) -> None:
    boxes, scores = crowd(5, 20, 2)
    asked = one("convert_boxes", boxes, source="xyxy", to=form)
    ours = many("suppress", asked, scores, keep=9, iou="0.4", format=form)
    plain = many("suppress", boxes, scores, keep=9, iou="0.4")
    number = int(plain[3][0])
    back = one("convert_boxes", ours[0], source=form, to="xyxy")
    assert np.array_equal(back[0, :number], plain[0][0, :number])
    assert np.array_equal(ours[2], plain[2])


def test_rows_of_a_batch_do_not_meet() -> None:
    boxes, scores = (
        np.concatenate(pair) for pair in zip(crowd(1, 9, 2), crowd(2, 9, 2), strict=True)
    )
    both = many("suppress", boxes, scores, keep=5)
    for row in range(2):
        alone = many("suppress", boxes[row : row + 1], scores[row : row + 1], keep=5)
        assert all(np.array_equal(x[row], y[0]) for x, y in zip(both, alone, strict=True))


def test_boxes_and_scores_that_are_no_numbers_go() -> None:
    boxes = np.float32([[[0, 0, 1, 1], [0, 0, np.nan, 1], [5, 5, np.inf, 9], [7, 7, 8, 8]]])
    scores = np.float32([[[0.5], [0.9], [0.9], [np.nan]]])
    found, _, of, number = many("suppress", boxes, scores, keep=3)
    assert number.tolist() == [1]
    assert of.tolist() == [[0, -1, -1]]
    assert np.isfinite(found).all()


@given(st.integers(0, 1000), st.sampled_from(FORMATS), st.sampled_from(FORMATS))
@settings(deadline=None)
def test_formats_are_each_others_inverse(seed: int, source: str, to: str) -> None:
    boxes, _ = crowd(seed, 5, 1)
    there = one("convert_boxes", boxes, source=source, to=to)
    assert np.allclose(one("convert_boxes", there, source=to, to=source), boxes, atol=1e-4)


def test_formats_mean_what_they_say() -> None:
    box = np.float32([[[1, 2, 5, 10]]])
    for form, wanted in (
        ("yxyx", [2, 1, 10, 5]),
        ("xywh", [1, 2, 4, 8]),
        ("cxcywh", [3, 6, 4, 8]),
        ("xyxy", [1, 2, 5, 10]),
    ):
        assert one("convert_boxes", box, source="xyxy", to=form).tolist() == [[wanted]]


def test_what_are_no_boxes_is_refused() -> None:
    boxes, scores = crowd(1, 4, 2)
    for x, y in ((boxes[0], scores), (boxes, scores[:, :3]), (boxes, scores[:, :, :0])):
        with pytest.raises(StepFailed, match="node 0"):
            many("suppress", x, y, keep=2)
    with pytest.raises(StepFailed, match="100000 boxes"):
        many("suppress", np.zeros((1, 100_001, 4), "f4"), np.zeros((1, 100_001, 1), "f4"), keep=2)
    with pytest.raises(StepFailed, match="takes boxes"):
        one("convert_boxes", np.zeros((1, 3), np.float32), source="xyxy", to="xywh")
    for wrong in ({"keep": 0}, {"keep": 2, "iou": "1.5"}, {"keep": 2, "format": "polar"}):
        with pytest.raises(Malformed):
            ready("suppress", 2, **wrong)
