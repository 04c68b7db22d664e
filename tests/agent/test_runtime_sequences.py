"""What is kept of sequences, as values: how many, for how long, and who goes first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent.runtime.sequences import Sequences, UnknownSequence
from edgefleet_agent.serving.bodies import BadBody
from edgefleet_agent.serving.question import SequenceAsk, read_sequence


def known(sequences: Sequences[int], now: float, names: str) -> str:
    found = ""
    for name in names:
        try:
            sequences.get(name, now)
        except UnknownSequence:
            continue
        found += name
    return found


def test_the_one_that_was_asked_least_recently_gives_way() -> None:
    kept: Sequences[int] = Sequences(limit=2, idle_s=10)
    for name, now in (("a", 0), ("b", 1), ("a", 2), ("c", 3)):
        kept.put(name, 0, now)
    assert known(kept, 3, "abc") == "ac"


def test_what_was_idle_for_too_long_is_not_known_any_more() -> None:
    kept: Sequences[int] = Sequences(limit=9, idle_s=10)
    kept.put("a", 0, 0)
    kept.put("b", 0, 5)
    assert known(kept, 10, "ab") == "ab"
    assert known(kept, 10.5, "ab") == "b"
    with pytest.raises(UnknownSequence, match=r"'a' is not known here.*start it anew"):
        kept.get("a", 10.5)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 4)), max_size=40))
def test_what_is_known_is_what_was_asked_lately(asked: list[tuple[str, float]]) -> None:
    kept: Sequences[float] = Sequences(limit=3, idle_s=5)
    now, last = 0.0, dict[str, float]()
    for name, pause in asked:
        now += pause
        kept.put(name, now, now)
        last.pop(name, None)
        last[name] = now
        assert len(kept) <= 3
    recent = [name for name in list(last)[-3:] if now - last[name] <= 5]
    assert sorted(known(kept, now, "abcdef")) == sorted(recent)
    assert all(kept.get(name, now) == last[name] for name in recent)


@pytest.mark.parametrize("nobody", [{}, {"sequence_id": 0}, {"sequence_id": ""}])
def test_a_request_that_names_none_is_of_none(nobody: dict[str, object]) -> None:
    assert read_sequence({**nobody, "priority": 3}) is None


def test_a_number_and_its_digits_are_one_name() -> None:
    assert read_sequence({"sequence_id": 7}) == SequenceAsk("7")
    assert read_sequence({"sequence_id": "7", "sequence_start": True, "sequence_end": False}) == (
        SequenceAsk("7", start=True)
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"sequence_id": True}, "'sequence_id' is true or false"),
        ({"sequence_id": 1.5}, "'sequence_id' is a number, expected a whole number"),
        ({"sequence_id": None}, "'sequence_id' is null"),
        ({"sequence_id": 2**70}, "more than 64 bits"),
        ({"sequence_id": "x" * 129}, "longer than 128"),
        ({"sequence_id": 1, "sequence_start": 1}, "'sequence_start' is a number"),
        ({"sequence_start": True}, "no 'sequence_id' says which"),
        ({"sequence_end": True, "sequence_id": ""}, "no 'sequence_id' says which"),
    ],
)
def test_a_name_that_is_none_is_refused(value: dict[str, object], says: str) -> None:
    with pytest.raises(BadBody, match=says):
        read_sequence(value)
