"""When a device may swap: maintenance windows by the clocks of a time zone, and the board's state.

Core: values in, values out; time is an argument, zones are given. A window opens at a wall-clock
time and lasts for real minutes, so a change of the clocks neither lengthens nor cuts it [wire-4.7].
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final, TypeAlias

from edgefleet_agent.device import DAY_S
from edgefleet_agent.ports import BoardState
from edgefleet_contract.order_policy import Policy, Window

Zones: TypeAlias = Callable[[str], dt.tzinfo]
"""Gives the time zone of an IANA name; raises `KeyError` where the board does not know it."""
_WEEK: Final = 7


def is_open(window: Window, now: int, zone: dt.tzinfo) -> bool:
    """Whether a window is open at a time, seconds since 1970."""
    return any(start <= now < start + window.minutes * 60 for start in _starts(window, now, zone))


def opens_at(window: Window, now: int, zone: dt.tzinfo) -> int:
    """When a window that is closed opens next, seconds since 1970."""
    return min(start for start in _starts(window, now, zone) if start > now)


def hindrance(policy: Policy, board: BoardState, now: int, zones: Zones) -> str:
    """What keeps an install from going on to its swap now; empty where nothing does."""
    limits = policy.conditions
    if policy.windows:
        pairs = [(window, zones(window.zone)) for window in policy.windows]
        if not any(is_open(window, now, zone) for window, zone in pairs):
            at = min(opens_at(window, now, zone) for window, zone in pairs)
            return f"no window is open before {dt.datetime.fromtimestamp(at, dt.UTC):%F %R} UTC"
    if limits.mains and board.on_mains is False:
        return "the board runs on battery"
    if limits.max_celsius and board.celsius is not None and board.celsius > limits.max_celsius:
        return f"the board is hotter than {limits.max_celsius} degrees"
    busy = board.cpu_ratio * 100 > limits.max_cpu_percent
    if limits.max_cpu_percent and busy:
        return f"the board is busier than {limits.max_cpu_percent} %"
    return ""


def next_day(now: int) -> float:
    """Seconds until the next day in UTC begins."""
    return float(DAY_S - now % DAY_S)


def _starts(window: Window, now: int, zone: dt.tzinfo) -> list[int]:
    """The starts of a window from a week (and its own length) ago to a week ahead."""
    hour, minute = (int(part) for part in window.start.split(":"))
    today = dt.datetime.fromtimestamp(now, zone).date()
    days = (today + dt.timedelta(days=offset) for offset in range(-_WEEK - 1, _WEEK + 2))
    walls = (dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone) for day in days)
    return [int(wall.timestamp()) for wall in walls if wall.weekday() in window.weekdays()]
