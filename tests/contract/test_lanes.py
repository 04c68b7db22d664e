from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract import lanes
from edgefleet_contract.lanes import Layout

LAYOUTS = st.sampled_from(Layout)


@st.composite
def runs(draw: st.DrawFn, count: int) -> tuple[Layout, list[bytes]]:
    """A layout, and runs of one length that it can hold."""
    layout = draw(LAYOUTS)
    size = layout.planes * draw(st.integers(1, 40))
    return layout, [draw(st.binary(min_size=size, max_size=size)) for _ in range(count)]


@given(runs(2))
def test_what_was_subtracted_is_added_again(given: tuple[Layout, list[bytes]]) -> None:
    layout, (new, old) = given
    assert lanes.add(lanes.subtract(new, old, layout.item), old, layout.item) == new


@given(runs(1))
def test_what_was_split_is_joined_again(given: tuple[Layout, list[bytes]]) -> None:
    layout, (raw,) = given
    planes = lanes.split(raw, layout)
    assert {len(plane) for plane in planes} == {len(raw) // layout.planes}
    assert lanes.join(planes, layout) == raw


@given(runs(2))
def test_differences_are_those_of_numpy(given: tuple[Layout, list[bytes]]) -> None:
    layout, (new, old) = given
    bits = 8 * layout.item
    kind = np.dtype(f"<i{layout.item}")
    with np.errstate(over="ignore"):
        difference = np.frombuffer(new, kind) - np.frombuffer(old, kind)
        zigzag = (difference << 1) ^ (difference >> (bits - 1))
    assert lanes.subtract(new, old, layout.item) == zigzag.tobytes()


@pytest.mark.parametrize(("difference", "code"), [(0, 0), (-1, 1), (1, 2), (-2, 3), (127, 254)])
def test_small_differences_of_either_sign_are_small_numbers(difference: int, code: int) -> None:
    assert lanes.subtract(bytes([difference % 256]), b"\0", 1) == bytes([code])


def test_crumbs_are_digits_of_two_bits_lowest_first() -> None:
    four = bytes([0b11_10_01_00, 0b00_00_00_01, 0b00_00_00_10, 0b01_00_00_11])
    assert lanes.split(four, Layout.CRUMBS) == [
        bytes([0b11_10_01_00]),
        bytes([0b00_00_00_01]),
        bytes([0b00_00_00_10]),
        bytes([0b01_00_00_11]),
    ]
