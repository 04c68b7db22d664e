"""Cropping, padding, order of axes and colours."""

from __future__ import annotations

import numpy as np
import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_processing import StepFailed
from tests.processing.steps import many, one, ready
from tests.processing.test_resize import picture


def test_the_centre_is_cropped() -> None:
    x = picture(7, 10)
    assert np.array_equal(one("centre_crop", x, height=3, width=4), x[:, 2:5, 3:7])
    assert np.array_equal(one("centre_crop", x, height=4, width=3), x[:, 1:5, 3:6])
    assert np.array_equal(one("centre_crop", x, height=7, width=10), x)
    with pytest.raises(StepFailed, match="cannot crop 8 by 4"):
        one("centre_crop", x, height=8, width=4)


def test_padding_is_numpys() -> None:
    x = picture(3, 4, n=2)
    wanted = np.pad(x, ((0, 0), (1, 2), (3, 4), (0, 0)), constant_values=9)
    assert np.array_equal(one("pad", x, top=1, bottom=2, left=3, right=4, value=9), wanted)


@pytest.mark.parametrize(
    ("source", "inner", "at"),
    [((10, 20), (20, 40), (10, 0)), ((20, 10), (40, 20), (0, 10)), ((7, 9), (31, 40), (4, 0))],
)
def test_a_letterbox_says_where_it_put_the_image(
    source: tuple[int, int], inner: tuple[int, int], at: tuple[int, int]
) -> None:
    x = picture(*source, n=2)
    box, place = many("letterbox", x, height=40, width=40, value=7, method="area")
    (height, width), (top, left) = inner, at
    assert box.shape == (2, 40, 40, 3)
    small = one("resize", x, height=height, width=width, method="area")
    assert np.array_equal(box[:, top : top + height, left : left + width], small)
    rest = np.ones((40, 40), bool)
    rest[top : top + height, left : left + width] = False
    assert (box[:, rest] == 7).all()
    assert place.dtype == np.float32
    wanted = np.float32([top, left, height / source[0], width / source[1]])
    assert np.array_equal(place, [wanted, wanted])


def test_boxes_come_back_from_a_letterbox_to_where_they_were() -> None:
    x = picture(30, 50)
    _, place = many("letterbox", x, height=64, width=64)
    top, left, down, across = place[0]
    corners = np.float32([[[5, 6, 20, 25], [0, 0, 50, 30]]])  # x, y, x, y in the source
    boxed = corners * [across, down, across, down] + [left, top, left, top]
    for form in ("xyxy", "yxyx", "cxcywh", "xywh"):
        asked = one("convert_boxes", boxed.astype(np.float32), source="xyxy", to=form)
        found = one("unletterbox", asked, place, format=form)
        again = one("convert_boxes", found, source=form, to="xyxy")
        assert np.allclose(again, corners, atol=1e-4)


def test_layout_goes_there_and_back() -> None:
    x = picture(3, 4, n=2)
    there = one("layout", x, to="nchw")
    assert np.array_equal(there, np.moveaxis(x, -1, 1))
    assert there.flags.c_contiguous
    assert np.array_equal(one("layout", there, to="nhwc"), x)


def test_colours_change_places_and_back() -> None:
    x = picture(3, 4)
    swapped = one("swap_colours", x)
    assert np.array_equal(swapped[..., 0], x[..., 2])
    assert np.array_equal(one("swap_colours", swapped), x)
    with pytest.raises(StepFailed, match=r"takes \[N, H, W, 3\]"):
        one("swap_colours", picture(3, 4, 1))


def test_grey_is_pillows_to_the_bit() -> None:
    image = pytest.importorskip("PIL.Image")
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    x = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, len(levels), -1, 3)
    wanted = np.asarray(image.fromarray(x[0]).convert("L"))
    assert np.array_equal(one("grey", x)[0, :, :, 0], wanted)
    three = one("grey", x, channels=3)
    assert all(np.array_equal(three[0, :, :, i], wanted) for i in range(3))


def test_grey_of_floats_is_the_weighted_sum() -> None:
    x = picture(4, 5).astype(np.float32)
    wanted = 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
    assert np.allclose(one("grey", x)[..., 0], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "wrong"),
    [
        ("pad", {"top": -1}),
        ("pad", {"value": 256}),
        ("letterbox", {"height": 0, "width": 1}),
        ("centre_crop", {"height": 1}),
        ("layout", {"to": "chwn"}),
        ("layout", {}),
        ("grey", {"channels": 2}),
        ("swap_colours", {"order": "bgr"}),
    ],
)
def test_settings_that_are_wrong_are_refused(op: str, wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed, match=rf"node 0 \({op}\)"):
        ready(op, **wrong)
