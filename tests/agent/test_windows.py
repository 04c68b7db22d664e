"""Maintenance windows by the clocks of real time zones, and what else holds a swap up."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent.ports import BoardState
from edgefleet_agent.windows import hindrance, is_open, next_day, opens_at
from edgefleet_contract.errors import Malformed
from edgefleet_contract.order_policy import Conditions, Policy, Window

BERLIN = ZoneInfo("Europe/Berlin")
QUIET = BoardState()
WINDOWS = st.builds(
    Window,
    st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
    st.integers(1, 7 * 24 * 60),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Asia/Kolkata"]),
    st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])).map(tuple),
)
TIMES = st.integers(1_500_000_000, 2_100_000_000)


def at(text: str, zone: dt.tzinfo = dt.UTC) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-25 01:59", False),
        ("2026-11-25 02:00", True),
        ("2026-11-25 04:59", True),
        ("2026-11-25 05:00", False),
        ("2026-11-28 03:00", False),  # a Saturday
    ],
)
def test_a_window_is_open_on_its_days_by_the_clocks_of_its_zone(time: str, expected: bool) -> None:
    window = Window("02:00", 180, "Europe/Berlin", ("mon", "tue", "wed", "thu", "fri"))
    assert is_open(window, at(time, BERLIN), BERLIN) is expected


def test_a_window_goes_on_past_midnight_and_past_the_end_of_the_week() -> None:
    window = Window("22:00", 600, "UTC", ("sun",))
    assert is_open(window, at("2026-11-29 23:00"), dt.UTC)
    assert is_open(window, at("2026-11-30 07:59"), dt.UTC)
    assert not is_open(window, at("2026-11-30 08:00"), dt.UTC)


def test_a_change_of_the_clocks_neither_lengthens_nor_cuts_a_window() -> None:
    window = Window("01:30", 120, "Europe/Berlin")
    for day in ("2026-03-29", "2026-10-25", "2026-11-25"):  # forward, back, neither
        start = at(f"{day} 01:30", BERLIN)
        assert not is_open(window, start - 1, BERLIN)
        assert is_open(window, start, BERLIN)
        assert is_open(window, start + 7199, BERLIN)
        assert not is_open(window, start + 7200, BERLIN)


def test_a_start_that_the_clocks_skip_happens_as_if_they_had_not() -> None:
    window = Window("02:30", 60, "Europe/Berlin")
    assert is_open(window, at("2026-03-29 01:30"), BERLIN)  # 03:30 in Berlin
    assert not is_open(window, at("2026-03-29 01:29"), BERLIN)


@given(WINDOWS, TIMES)
def test_a_closed_window_opens_when_it_says(window: Window, now: int) -> None:
    zone = ZoneInfo(window.zone)
    if not is_open(window, now, zone):
        opens = opens_at(window, now, zone)
        assert now < opens <= now + 8 * 24 * 3600
        assert is_open(window, opens, zone)
        assert not is_open(window, opens - 1, zone) or window.minutes > 1


def test_any_one_of_several_windows_will_do() -> None:
    policy = Policy(windows=(Window("02:00", 60), Window("14:00", 60, "Europe/Berlin")))
    assert hindrance(policy, QUIET, at("2026-11-25 13:30"), ZoneInfo) == ""
    held = hindrance(policy, QUIET, at("2026-11-25 14:30"), ZoneInfo)
    assert held == "no window is open before 2026-11-26 02:00 UTC"


@pytest.mark.parametrize(
    ("board", "found"),
    [
        (BoardState(on_mains=False), "battery"),
        (BoardState(celsius=71.0), "hotter than 70"),
        (BoardState(cpu_ratio=0.6), "busier than 50 %"),
        (BoardState(on_mains=True, celsius=69.0, cpu_ratio=0.4), ""),
        (BoardState(), ""),  # a board that cannot tell is not held up
    ],
)
def test_the_state_of_the_board_holds_a_swap_up(board: BoardState, found: str) -> None:
    asked = Policy(conditions=Conditions(mains=True, max_celsius=70, max_cpu_percent=50))
    held = hindrance(asked, board, 0, ZoneInfo)
    assert found in held
    assert bool(found) == bool(held)


def test_the_next_day_begins_at_midnight_in_utc() -> None:
    assert next_day(at("2026-11-25 23:59")) == 60


@pytest.mark.parametrize(
    ("start", "minutes", "zone", "days"),
    [
        ("24:00", 60, "UTC", ()),
        ("2:00", 60, "UTC", ()),
        ("02:00", 0, "UTC", ()),
        ("02:00", 10_081, "UTC", ()),
        ("02:00", 60, "../../etc/passwd", ()),
        ("02:00", 60, "UTC", ("friday",)),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(
    start: str, minutes: int, zone: str, days: tuple[str, ...]
) -> None:
    with pytest.raises(Malformed):
        Window(start, minutes, zone, days)
