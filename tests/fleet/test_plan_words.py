"""A plan as the command line says it, and a dry run of one."""

from __future__ import annotations

import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.cohort import parse_waves
from edgefleet_fleet.pace import Pace
from edgefleet_fleet.plan_words import duration, gates, moment, pace, rate, share
from edgefleet_fleet.rehearsal import INSTALL_S, rehearse
from edgefleet_fleet.rollout_plan import Plan
from tests.fleet.play import many


def test_gates_are_said_in_words() -> None:
    found = gates(["failures=3%,silence=10m,on-trip=revert", "errors=2%:200,p95=250,psi=0.25"])
    assert found == {
        "gate": {"limit": 0.03, "silence_s": 600, "on_trip": "revert"},
        "model_gates": [
            {"kind": "errors", "limit": 0.02, "min_sample": 200},
            {"kind": "slow", "limit": 0.05},
            {"kind": "psi", "limit": 0.25},
        ],
        "envelope": {"p95_us": 250_000},
    }
    assert gates(["on-trip=pause"])["gate"] == {}


def test_a_pace_is_said_in_words() -> None:
    found = pace("50/min,at-once=20,ramp=2x100,max=1000")
    assert Pace(**found) == Pace(50, 20, 2.0, 100, 1000)
    assert pace("") == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("200kB/s", 200_000),
        ("1.5MB/s", 1_500_000),
        ("64KiB", 65_536),
        ("1 MiB/s", 2**20),
        ("50000", 50_000),
    ],
)
def test_a_rate_is_said_with_its_unit(text: str, found: int) -> None:
    assert rate(text) == found


@pytest.mark.parametrize("text", ["", "fast", "-1kB/s", "200kb/s", "200kB/h", "1e9", "9" * 13])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        rate(text)


def test_times_are_said_as_people_say_them() -> None:
    assert [duration(text) for text in ("90", "90s", "15m", "2h", "7d")] == [
        *(90, 90, 900, 7200, 604800),
    ]
    assert moment("+2h", now=1000.5) == 8200
    assert moment("2027-01-31T08:00+01:00", now=0) == 1801378800
    assert (share("5%"), share("0.05")) == (0.05, 0.05)


@pytest.mark.parametrize(
    "say",
    [
        lambda: gates(["failures"]),
        lambda: gates(["bricks=3"]),
        lambda: gates(["failures=few"]),
        lambda: gates(["min-count=x"]),
        lambda: gates(["on-trip=cry"]),
        lambda: pace("fast"),
        lambda: pace("ramp=2"),
        lambda: duration("soon"),
        lambda: moment("tomorrow", now=0),
        lambda: moment("2027-01-31T08:00", now=0),
    ],
)
def test_what_is_not_understood_is_refused(say: object) -> None:
    assert callable(say)
    with pytest.raises(Malformed):
        say()


def test_a_dry_run_has_the_earliest_time_of_every_device() -> None:
    plan = Plan("s", parse_waves("2n,100"), pace=Pace(per_minute=6), soak_s=300, start_at=5000)
    visits = rehearse(plan, many(4), now=1000)
    assert [(visit.wave, visit.at) for visit in visits] == [
        (0, 5000),
        (0, 5010),
        (1, 5010 + INSTALL_S + 300),
        (1, 5020 + INSTALL_S + 300),
    ]


def test_a_dry_run_does_not_ask_a_class_that_is_blocked_and_ends_without_devices() -> None:
    devices = {"a": "Pi 5", "b": "Pi 3"}
    assert {visit.device: visit.at for visit in rehearse(Plan("s"), devices, ("Pi 3",), now=9)} == {
        "a": 9,
        "b": None,
    }
    assert rehearse(Plan("s"), {}, now=9) == ()
