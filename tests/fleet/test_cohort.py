"""Who falls into which wave."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.cohort import Wave, cuts, parse_waves, place, wave_of

words = st.text("abcdefgh0123.-", min_size=1, max_size=8)
rising = st.lists(st.integers(1, 99), max_size=5, unique=True).map(lambda w: (*sorted(w), 100))


def shares(*percents: int) -> tuple[Wave, ...]:
    return tuple(Wave(percent) for percent in percents)


def wave(salt: str, device: str, waves: tuple[Wave, ...], *canaries: str) -> int:
    return wave_of(device, salt=salt, ends=cuts(waves, ()), canaries=canaries)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "100,50",
        "0,100",
        "50,50,100",
        "10,x,100",
        "50,101",
        "5n",
        "50,5n,100",
        "9n,5n,100",
    ],
)
def test_waves_that_do_not_rise_to_100_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_waves(text)


def test_waves_may_be_written_with_percent_signs_and_as_numbers_of_devices() -> None:
    assert parse_waves("5%, 25%,100%") == shares(5, 25, 100)
    assert parse_waves("5n,20n,50,100") == (Wave(devices=5), Wave(devices=20), *shares(50, 100))


def test_the_place_of_a_device_is_the_same_for_ever() -> None:
    # printf saltpi-1 | sha256sum | cut -c1-16: another value would move devices between waves.
    assert place("salt", "pi-1") == 0x070273567E7948D0


@given(st.text(min_size=1, max_size=20), words, rising)
def test_every_device_has_exactly_one_wave_and_canaries_the_first(
    salt: str, device: str, waves: tuple[int, ...]
) -> None:
    found = wave(salt, device, shares(*waves))
    assert 0 <= found < len(waves)
    assert wave(salt, device, shares(*waves), device) == 0
    assert wave(salt, device, shares(*waves), "?") == found + 1


@given(st.sets(words, min_size=1, max_size=40), rising)
def test_shares_are_met_to_the_device_in_a_small_fleet(
    devices: set[str], waves: tuple[int, ...]
) -> None:
    ends = cuts(shares(*waves), (place("s", device) for device in devices))
    found = [wave_of(d, salt="s", ends=ends, canaries=()) for d in devices]
    for number, share in enumerate(waves):
        assert sum(w <= number for w in found) == math.ceil(len(devices) * share / 100)
    assert list(ends) == sorted(ends)
    assert wave_of("later", salt="s", ends=ends, canaries=()) in range(len(waves))


@given(words, st.integers(1, 98))
def test_a_larger_share_only_adds_devices(device: str, share: int) -> None:
    small = wave("s", device, shares(share, 100))
    large = wave("s", device, shares(share + 1, 100))
    assert large <= small


def test_shares_are_what_they_say_over_many_devices() -> None:
    waves = [wave("x", f"device-{i}", shares(10, 50, 100)) for i in range(5000)]
    assert [round(waves.count(number) / 5000, 1) for number in range(3)] == [0.1, 0.4, 0.5]


@given(st.sets(words, max_size=30), st.integers(1, 40), st.integers(1, 99))
def test_a_number_of_devices_is_met_exactly_and_who_joins_later_has_a_wave(
    devices: set[str], count: int, share: int
) -> None:
    waves = (Wave(devices=count), Wave(share), Wave(100))
    ends = cuts(waves, (place("s", device) for device in devices))
    found = [wave_of(d, salt="s", ends=ends, canaries=()) for d in sorted(devices)]
    assert found.count(0) == min(count, len(devices))
    assert list(ends) == sorted(ends)
    assert wave_of("later", salt="s", ends=ends, canaries=()) in range(3)
