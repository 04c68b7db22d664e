"""Resizing, against Pillow, and against what its conventions say in so many words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_processing import StepFailed
from tests.processing.steps import one, ready

SIZES = [((37, 53), (16, 20)), ((20, 30), (41, 45)), ((64, 48), (32, 24)), ((9, 50), (30, 7))]
SIDE = st.integers(1, 24)


def picture(height: int, width: int, channels: int = 3, n: int = 1) -> np.ndarray:
    chance = np.random.default_rng(height * 1000 + width)
    return chance.integers(0, 256, (n, height, width, channels), np.uint8)


def pillow(x: np.ndarray, height: int, width: int, how: str) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    how = getattr(image.Resampling, how)
    return np.stack([np.asarray(image.fromarray(i).resize((width, height), how)) for i in x])


def to(height: int, width: int, method: str, **more: object) -> dict[str, object]:
    return {"height": height, "width": width, "method": method, **more}


@pytest.mark.parametrize(
    ("source", "size"), [((37, 53), (16, 20)), ((21, 31), (41, 45)), ((9, 51), (30, 7))]
)
def test_nearest_takes_the_pixels_that_pillow_takes(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    """Odd sides, so that no centre lies on an edge, where Pillow's floats decide."""
    x = picture(*source)
    assert np.array_equal(one("resize", x, **to(*size, "nearest")), pillow(x, *size, "NEAREST"))


def test_a_centre_on_an_edge_takes_the_pixel_that_begins_there() -> None:
    x = np.arange(6, dtype=np.uint8).reshape(1, 1, 6, 1)
    assert one("resize", x, **to(1, 9, "nearest")).ravel().tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5]
    assert one("resize", x, **to(1, 3, "nearest")).ravel().tolist() == [1, 3, 5]


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_bilinear_is_pillows_within_its_rounding(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    """Pillow rounds between the two directions: a level more or less. Here it is done once."""
    x = picture(*source, n=2)
    found = one("resize", x, **to(*size, "bilinear"))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - pillow(x, *size, "BILINEAR")).max() <= 1
    floats = one("resize", x.astype(np.float32), **to(*size, "bilinear"))
    assert np.array_equal(found, np.floor(floats + np.float32(0.5)))


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_bilinear_of_floats_is_pillows(source: tuple[int, int], size: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    x = picture(*source, 1).astype(np.float32)
    found = one("resize", x, **to(*size, "bilinear"))
    theirs = image.fromarray(x[0, :, :, 0]).resize(size[::-1], image.Resampling.BILINEAR)
    assert np.allclose(found[0, :, :, 0], np.asarray(theirs), atol=1e-3)


@given(SIDE, SIDE, SIDE, SIDE)
@settings(max_examples=60, deadline=None)
def test_area_is_the_mean_over_the_pixels_covered(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    """Each pixel made of h by w equal ones, means of H by W of them are the same thing."""
    x = picture(height, width, 2).astype(np.float32)
    fine = x.repeat(new_height, 1).repeat(new_width, 2)
    wanted = fine.reshape(1, new_height, height, new_width, width, 2).mean((2, 4))
    assert np.allclose(one("resize", x, **to(new_height, new_width, "area")), wanted, atol=1e-3)


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_without_antialiasing_four_pixels_are_interpolated(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    """Against the textbook: clamp the source coordinate, then weigh its neighbours."""
    x = picture(*source, 1).astype(np.float64)[0, :, :, 0]

    def along(count: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = ((np.arange(new) + 0.5) * count / new - 0.5).clip(0, count - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, count - 1), at - low

    (top, bottom, down), (left, right, across) = (
        along(*pair) for pair in zip(source, size, strict=True)
    )
    rows = x[top] * (1 - down)[:, None] + x[bottom] * down[:, None]
    wanted = rows[:, left] * (1 - across) + rows[:, right] * across
    x32 = x.astype(np.float32)[None, :, :, None]
    found = one("resize", x32, **to(*size, "bilinear", antialias=False))
    assert np.allclose(found[0, :, :, 0], wanted, atol=1e-3)


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(["nearest", "bilinear", "area"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_plain_colour_stays_what_it_is(
    height: int, width: int, new_height: int, new_width: int, method: str, antialias: bool
) -> None:
    x = np.full((1, height, width, 3), 201, np.uint8)
    found = one("resize", x, **to(new_height, new_width, method, antialias=antialias))
    assert found.shape == (1, new_height, new_width, 3)
    assert (found == 201).all()


@given(SIDE, SIDE, st.sampled_from(["bilinear", "area", "nearest"]))
@settings(max_examples=30, deadline=None)
def test_a_mirrored_picture_is_resized_to_the_mirror_image(
    height: int, width: int, method: str
) -> None:
    """The convention has no left and right; nearest has, in ties, which odd factors do not have."""
    x = picture(height, width).astype(np.float32)
    size = (height * 3, width * 3) if method == "nearest" else (11, 13)
    found = one("resize", x, **to(*size, method))
    mirrored = one("resize", np.ascontiguousarray(x[:, ::-1, ::-1]), **to(*size, method))
    assert np.allclose(found, mirrored[:, ::-1, ::-1], atol=1e-3)


@pytest.mark.parametrize(
    ("source", "fit", "size"),
    [
        ((480, 640), "cover", (256, 341)),
        ((640, 480), "cover", (341, 256)),
        ((480, 640), "inside", (192, 256)),
        ((1, 300), "inside", (1, 256)),
        ((100, 100), "cover", (256, 256)),
        ((480, 640), "stretch", (256, 256)),
    ],
)
def test_the_aspect_ratio_is_kept_where_it_is_asked_for(
    source: tuple[int, int], fit: str, size: tuple[int, int]
) -> None:
    x = np.zeros((1, *source, 1), np.uint8)
    assert one("resize", x, **to(256, 256, "nearest", fit=fit)).shape == (1, *size, 1)


@pytest.mark.parametrize("method", ["bilinear", "area", "nearest"])
def test_no_pictures_are_resized_to_none_and_each_of_many_by_itself(method: str) -> None:
    x = picture(300, 200, n=3)
    assert one("resize", x[:0], **to(64, 48, method)).shape == (0, 64, 48, 3)
    found = one("resize", x, **to(64, 48, method))  # in more than one band
    alone = [one("resize", x[i : i + 1], **to(64, 48, method)) for i in range(3)]
    assert np.array_equal(found, np.concatenate(alone))


def test_what_would_become_too_large_is_refused_before_it_is_made() -> None:
    thin = np.zeros((1, 1, 32768, 1), np.uint8)
    graph = ready("resize", **to(8192, 8192, "bilinear", fit="cover"))
    with pytest.raises(StepFailed, match=r"node 0 \(resize\) an image of 1 by 32768"):
        graph.run({"x0": thin}, ("y0",), {})
    graph = ready("resize", **to(8192, 8192, "bilinear"))
    with pytest.raises(StepFailed, match="at most 268435456 are taken") as caught:
        graph.run({"x0": np.zeros((2, 4, 4, 3), np.uint8)}, ("y0",), {})
    assert caught.value.input_is_to_blame


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((1, 0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.float64),
        np.zeros((1, 4, 4, 3), np.int8),
    ],
    ids=["no batch", "no rows", "float64", "int8"],
)
def test_what_is_no_batch_of_images_is_refused(x: np.ndarray) -> None:
    with pytest.raises(StepFailed):
        ready("resize", **to(2, 2, "bilinear")).run({"x0": x}, ("y0",), {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0, "width": 2},
        {"height": 9000, "width": 2},
        {"height": 2},
        to(2, 2, "cubic"),
        to(2, 2, "area", fit="crop"),
        to(2, 2, "area", more=1),
    ],
    ids=str,
)
def test_settings_that_are_wrong_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed, match=r"node 0 \(resize\)"):
        ready("resize", **wrong)
