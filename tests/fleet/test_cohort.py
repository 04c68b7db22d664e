"""Who falls into which wave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.cohort import parse_waves, place, wave_of

words = st.text("abcdefgh0123.-", min_size=1, max_size=8)
rising = st.lists(st.integers(1, 99), max_size=5, unique=True).map(lambda w: (*sorted(w), 100))


@pytest.mark.parametrize("text", ["", "10", "100,50", "0,100", "50,50,100", "10,x,100", "50,101"])
def test_waves_that_do_not_rise_to_100_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_waves(text)


def test_waves_may_be_written_with_percent_signs() -> None:
    assert parse_waves("5%, 25%,100%") == (5, 25, 100)


def test_the_place_of_a_device_is_the_same_for_ever() -> None:
    # printf saltpi-1 | sha256sum | cut -c1-16: another value would move devices between waves.
    assert place("salt", "pi-1") == 0x070273567E7948D0


@given(st.text(min_size=1, max_size=20), words, rising)
def test_every_device_has_exactly_one_wave_and_canaries_the_first(
    salt: str, device: str, waves: tuple[int, ...]
) -> None:
    wave = wave_of(device, salt=salt, waves=waves, canaries=frozenset())
    assert 0 <= wave < len(waves)
    assert wave_of(device, salt=salt, waves=waves, canaries=frozenset({device})) == 0
    assert wave_of(device, salt=salt, waves=waves, canaries=frozenset({"other"})) == wave + 1


@given(words, st.integers(1, 98))
def test_a_larger_share_only_adds_devices(device: str, share: int) -> None:
    small = wave_of(device, salt="s", waves=(share, 100), canaries=frozenset())
    large = wave_of(device, salt="s", waves=(share + 1, 100), canaries=frozenset())
    assert large <= small


def test_shares_are_what_they_say_over_many_devices() -> None:
    waves = [
        wave_of(f"device-{i}", salt="x", waves=(10, 50, 100), canaries=frozenset())
        for i in range(5000)
    ]
    assert [round(waves.count(wave) / 5000, 1) for wave in range(3)] == [0.1, 0.4, 0.5]
