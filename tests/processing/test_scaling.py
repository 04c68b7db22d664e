"""Scaling, rounding and quantizing: closed formulas, and laws that hold for all numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefleet_contract.errors import Malformed
from edgefleet_processing import StepFailed
from edgefleet_processing.settings import number
from tests.processing.steps import one, ready

FINITE = arrays.arrays(np.float32, (2, 5), elements=st.floats(-1e6, 1e6, width=32))
ANY = arrays.arrays(np.float32, (2, 5), elements=st.floats(width=32))
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "int64"]
MEAN, STD = ["0.485", "0.456", "0.406"], ["0.229", "0.224", "0.225"]


def test_images_are_normalised_as_everybody_does() -> None:
    x = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), np.uint8)
    wanted = (x / 255 - np.float64(MEAN)) / np.float64(STD)
    found = one("normalise", x, mean=MEAN, std=STD, scale="1/255")
    assert found.dtype == np.float32
    assert np.allclose(found, wanted, atol=1e-6)
    chw = one("normalise", np.moveaxis(x, -1, 1), mean=MEAN, std=STD, scale="1/255", axis=1)
    assert np.array_equal(np.moveaxis(chw, 1, -1), found)


def test_one_number_may_stand_for_all_channels() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    found = one("normalise", x, mean=["127.5"], std=["1", "2", "4"])
    assert np.array_equal(found, (x - np.float32(127.5)) / np.float32([1, 2, 4]))
    assert np.array_equal(one("normalise", x, mean=["1"], std=["2"]), (x - 1) / 2)


def test_other_channels_than_there_are_numbers_are_the_clients_mistake() -> None:
    with pytest.raises(StepFailed, match="has 3 channels to normalise") as caught:
        one("normalise", np.zeros((1, 2, 2, 4), np.uint8), mean=MEAN, std=STD)
    assert caught.value.input_is_to_blame


@given(FINITE)
@settings(deadline=None)
def test_scale_and_clip_are_what_they_say(x: np.ndarray) -> None:
    wanted = x * np.float32(0.25) + np.float32(-3.5)
    assert np.array_equal(one("scale", x, factor="1/4", offset="-3.5"), wanted)
    clipped = one("clip", x, low="-1", high="2.5")
    assert np.array_equal(clipped, np.minimum(np.maximum(x, -1), np.float32(2.5)))


@given(FINITE, st.sampled_from(["int8", "uint8", "int16"]), st.integers(0, 100))
@settings(deadline=None)
def test_what_is_quantized_comes_back_within_half_a_step(
    x: np.ndarray, dtype: str, zero: int
) -> None:
    """Where it does not saturate."""
    scale = "0.0625"
    quantized = one("quantize", x, scale=scale, zero_point=zero, dtype=dtype)
    assert quantized.dtype == dtype
    again = one("dequantize", quantized, scale=scale, zero_point=zero)
    bounds = np.iinfo(dtype)
    low, high = (float(bounds.min) - zero) / 16, (float(bounds.max) - zero) / 16
    inside = (x >= low) & (x <= high)
    assert (np.abs(again - x)[inside] <= 1 / 32).all()
    assert np.array_equal(again[~inside], x[~inside].clip(low, high))


@given(st.integers(-128, 127), st.sampled_from(["1/3", "0.1", "7"]))
@settings(deadline=None)
def test_quantizing_what_was_dequantized_changes_nothing(q: int, scale: str) -> None:
    x = np.full((1, 3), q, np.int8)
    floats = one("dequantize", x, scale=scale, zero_point=5)
    assert np.array_equal(one("quantize", floats, scale=scale, zero_point=5), x)


@given(ANY, st.sampled_from(INTEGERS), st.sampled_from(["half_even", "half_up", "floor", "zero"]))
@settings(max_examples=200, deadline=None)
def test_a_cast_rounds_and_saturates_as_python_does(
    x: np.ndarray, dtype: str, rounding: str
) -> None:
    def exact(value: float) -> int:
        bounds = np.iinfo(dtype)
        if value != value:
            return 0
        if abs(value) == float("inf"):
            return int(bounds.max if value > 0 else bounds.min)
        whole = Fraction(value)
        rounded = {
            "half_even": lambda: round(whole),
            "half_up": lambda: (whole + Fraction(1, 2)).__floor__(),
            "floor": whole.__floor__,
            "zero": whole.__trunc__,
        }[rounding]()
        return max(int(bounds.min), min(int(bounds.max), rounded))

    found = one("cast", x, dtype=dtype, rounding=rounding)
    assert found.dtype == dtype
    assert found.ravel().tolist() == [exact(float(v)) for v in x.ravel()]


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(INTEGERS))
@settings(deadline=None)
def test_integers_saturate_too(value: int, dtype: str) -> None:
    bounds = np.iinfo(dtype)
    found = one("cast", np.array([[value]], np.int64), dtype=dtype)
    assert found.tolist() == [[max(int(bounds.min), min(int(bounds.max), value))]]


def test_truth_values_and_floats_are_cast() -> None:
    truth = np.array([[True, False]])
    assert one("cast", truth, dtype="float32").tolist() == [[1.0, 0.0]]
    assert one("cast", truth, dtype="uint8").tolist() == [[1, 0]]
    assert one("cast", np.float32([[1.5]]), dtype="float64").dtype == np.float64


@pytest.mark.parametrize(
    ("text", "value"),
    [("1/255", 1 / 255), ("0.485", 0.485), ("-3", -3.0), ("1e-10", 1e-10), ("1.5e3", 1500.0)],
)
def test_numbers_are_read_exactly(text: str, value: float) -> None:
    assert number(text, "x") == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "1/0", "1e99", "1e999999999", "9" * 60, "nan", "inf", "0x10", "1_000", " 1"),
        *("1/2/3", "1.5/2", "\u0661", "+1", "1."),
    ],
)
def test_what_is_no_number_is_refused_in_no_time(text: str) -> None:
    with pytest.raises(Malformed):
        number(text, "x")


@pytest.mark.parametrize(
    ("op", "wrong"),
    [
        ("normalise", {"mean": []}),
        ("normalise", {"std": ["0"]}),
        ("normalise", {"mean": MEAN, "std": ["1", "2"]}),
        ("normalise", {"axis": 0}),
        ("normalise", {"mean": [1]}),
        ("clip", {"low": "2", "high": "1"}),
        ("quantize", {"scale": "0"}),
        ("quantize", {"scale": "-1"}),
        ("quantize", {"scale": "1", "zero_point": 200, "dtype": "int8"}),
        ("quantize", {"scale": "1", "dtype": "int32"}),
        ("cast", {"dtype": "complex64"}),
        ("scale", {"factor": "1e39"}),
    ],
)
def test_settings_that_are_wrong_are_refused(op: str, wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed, match=rf"node 0 \({op}\)"):
        ready(op, **wrong)


@pytest.mark.parametrize("op", ["cast", "dequantize", "scale"])
def test_text_is_no_number(op: str) -> None:
    more: dict[str, object] = {"cast": {"dtype": "int8"}, "dequantize": {"scale": "1"}}.get(op, {})
    with pytest.raises(StepFailed, match="takes"):
        one(op, np.array([["a"]], object), **more)
