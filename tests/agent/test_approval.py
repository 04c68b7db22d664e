"""How a device waits for an operator: what it asks, what it says, what ends it."""

from __future__ import annotations

import pytest

from edgefleet_agent.approval import Answer, Patience, await_answer, refuse_to_wait
from edgefleet_contract.enrolment import EnrolPending, EnrolResponse
from edgefleet_contract.errors import OperatorError, TransientError, Unverified

KEY = "ab" * 32
DONE = EnrolResponse("pi-1", "certificate", "root", "http://fleet/tuf", "fleet", 8883)
AWAY = TransientError("cannot reach the fleet")


def later(seconds: int) -> EnrolPending:
    return EnrolPending("pi-1", KEY, seconds)


class Fleet:
    """Answers in turn; an error is raised."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)

    def __call__(self) -> Answer:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_it_asks_again_as_often_as_the_fleet_says_and_tells_the_key_once() -> None:
    said: list[str] = []
    slept: list[float] = []
    fleet = Fleet(later(2), later(2), later(30), DONE)
    assert await_answer(fleet, Patience(said.append, slept.append), key_id=KEY) == DONE
    assert slept == [2, 2, 30]
    assert said == [
        "pi-1 waits for an operator's approval",
        f"key id: {KEY}",
        f"hint: fleet devices approve pi-1 --key-id {KEY[:16]}",
    ]


def test_a_fleet_that_goes_away_is_asked_again_when_it_is_back() -> None:
    said: list[str] = []
    slept: list[float] = []
    fleet = Fleet(later(2), AWAY, AWAY, later(7), AWAY, DONE)
    assert await_answer(fleet, Patience(said.append, slept.append), key_id=KEY) == DONE
    assert slept == [2, 2, 2, 7, 7]
    assert said[3:] == ["cannot reach the fleet; still waiting"] * 2


def test_a_fleet_that_is_away_from_the_start_is_not_waited_for() -> None:
    with pytest.raises(TransientError, match="cannot reach"):
        await_answer(Fleet(AWAY), refuse_to_wait, key_id=KEY)


def test_a_refusal_ends_the_wait() -> None:
    fleet = Fleet(later(2), OperatorError("the fleet refused: an operator denied it"))
    with pytest.raises(OperatorError, match="an operator denied it"):
        await_answer(fleet, Patience(lambda _: None, lambda _: None), key_id=KEY)


def test_a_fleet_that_was_asked_for_another_key_is_not_waited_for() -> None:
    fleet = Fleet(EnrolPending("pi-1", "cd" * 32, 2))
    with pytest.raises(Unverified, match="asked for the key cdcdcdcdcdcdcdcd"):
        await_answer(fleet, refuse_to_wait, key_id=KEY)


def test_who_does_not_wait_is_told_what_to_do() -> None:
    with pytest.raises(TransientError, match=f"with the key id {KEY}") as left:
        await_answer(Fleet(later(2)), refuse_to_wait, key_id=KEY)
    assert left.value.hint.endswith("then run this again")
