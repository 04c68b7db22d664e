"""Which commands are done, which are refused, and which are not heard at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent.commanding import (
    REMEMBERED,
    CommandLog,
    Ignore,
    Refuse,
    Run,
    Verdict,
    judge,
)
from edgefleet_contract.commands import ALLOWED, MAX_COMMAND_LIFE_S, Command, Kind

NOW = 1_000_000


def command(seq: int = 7, **more: object) -> Command:
    fields: dict[str, object] = {
        "fleet": "demo",
        "device": "pi-1",
        "id": f"c{seq}",
        "seq": seq,
        "issued": NOW,
        "expires": NOW + 60,
        "kind": Kind.PING,
        **more,
    }
    return Command(**fields)  # type: ignore[arg-type]


def judged(found: Command, log: CommandLog | None = None, **more: object) -> Verdict:
    world: dict[str, object] = {
        "fleet": "demo",
        "name": "pi-1",
        "now": NOW,
        "allow": ALLOWED,
        "running": 0,
        "at_once": 16,
        **more,
    }
    return judge(found, log or CommandLog(), **world)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(Kind))
def test_by_default_nothing_is_done_whose_answer_is_text_of_the_site(kind: Kind) -> None:
    found = command(kind=kind, slot="digits", lines=int(kind is Kind.LOGS))
    is_done = isinstance(judged(found), Run)
    assert is_done is (kind not in (Kind.LOGS, Kind.PREDICT))
    assert isinstance(judged(found, allow=tuple(Kind)), Run)
    refused = judged(found, allow=())
    assert isinstance(refused, Refuse)
    assert f"does not allow {kind}" in refused.why


@pytest.mark.parametrize("wrong", [{"device": "pi-2"}, {"fleet": "other"}])
def test_what_is_anothers_is_not_even_answered(wrong: dict[str, object]) -> None:
    assert isinstance(judged(replace(command(), **wrong)), Ignore)  # type: ignore[arg-type]


def test_what_is_past_its_end_or_lives_too_long_is_refused() -> None:
    assert isinstance(judged(command(), now=NOW + 60), Run)
    late = judged(command(), now=NOW + 61)
    assert isinstance(late, Refuse)
    assert "ended 1 s ago" in late.why
    assert isinstance(judged(command(expires=NOW + MAX_COMMAND_LIFE_S + 1)), Refuse)
    assert isinstance(judged(command(), running=16), Refuse)


def test_what_was_taken_is_not_heard_again_answered_or_not() -> None:
    log = CommandLog().began(command())
    for each in (log, log.answered(7, "{}"), log.answered(7, "{}").told(7)):
        assert isinstance(judged(command(), each), Ignore)
        assert isinstance(judged(command(8, id="c7"), each), Ignore)  # the same name, a new number
        assert isinstance(judged(command(8), each), Run)
        assert isinstance(judged(command(6), each), Run)  # one that came late was not taken


def test_a_log_that_was_lost_takes_nothing_that_was_issued_before() -> None:
    assert isinstance(judged(command(), CommandLog(not_before=NOW + 1)), Ignore)
    assert isinstance(judged(command(issued=NOW + 1), CommandLog(not_before=NOW + 1)), Run)


def test_the_log_is_bounded_and_says_which_command_is_open() -> None:
    log = CommandLog()
    for seq in range(1, REMEMBERED + 11):
        log = log.began(command(seq))
    assert (len(log.taken), log.floor) == (REMEMBERED, 10)
    assert log.taken[0].is_open
    assert not log.answered(11, "{}").taken[0].is_open
    told = log.answered(11, "{}").told(11).taken[0]
    assert (told.is_open, told.answer, told.told) == (False, "", True)


@given(st.lists(st.integers(1, 200), max_size=300))
def test_whatever_comes_in_whatever_order_nothing_is_done_twice(numbers: list[int]) -> None:
    log, done = CommandLog(), []
    for seq in numbers:
        found = command(seq)
        if isinstance(judged(found, log), Run):
            done.append(seq)
            log = log.began(found)
    assert len(set(done)) == len(done)
    assert len(log.taken) <= REMEMBERED
