"""A sample of every class of hostile inputs; `make hostile` tries them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.attempts import CLASSES, NOTHING, Attempt, HostileClass, Verdict, judge, spread
from tests.hostile.catalogue import load_classes
from tests.hostile.ground import Ground, ground

load_classes()


@pytest.fixture(scope="module")
def here() -> Iterator[Ground]:
    with ground() as found:
        yield found


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_hostile_is_accepted_or_left_on_disk(here: Ground, name: str) -> None:
    cls = CLASSES[name]
    generated = cls.generate(here)
    if name in EAGER:
        ended = [judge(cls, attempt) for attempt in _first(generated, cls.sample)]
    else:
        ended = [judge(cls, attempt) for attempt in spread(list(generated), cls.sample)]
    assert len(ended) >= min(4, cls.sample)
    assert [one for one in ended if not one.is_good] == []


EAGER = {"boards", "sealed_boards", "messages", "enrolment"}
"""Classes whose ground goes with their generator: taken one after the other."""


def _first(generated: Iterator[Attempt], most: int) -> Iterator[Attempt]:
    for _, attempt in zip(range(most), generated, strict=False):
        yield attempt
    generated.close()  # type: ignore[attr-defined] # a generator


@pytest.mark.parametrize(
    ("attempt", "verdict"),
    [
        (Attempt("accepted", lambda: "other", "same"), Verdict.ACCEPTED),
        (Attempt("the same", lambda: "same", "same"), Verdict.SAME),
        (Attempt("died", lambda: {}["x"], NOTHING), Verdict.DIED),
    ],
)
def test_the_judge_sees_what_is_wrong(attempt: Attempt, verdict: Verdict) -> None:
    cls = HostileClass("x", frozenset(), lambda _: iter(()), 1)
    assert judge(cls, attempt).verdict is verdict


def test_the_judge_sees_what_is_left_behind_and_a_reason_that_is_not_the_right_one(
    here: Ground,
) -> None:
    steps: list[str] = []

    def refuse() -> object:
        steps.append("a step")
        return here.open(b"{}")

    left = HostileClass("x", frozenset({"malformed"}), lambda _: iter(()), 1)
    assert judge(left, Attempt("x", refuse, trace=lambda: len(steps))).verdict is Verdict.LEFT
    other = HostileClass("x", frozenset({"unknown_key"}), lambda _: iter(()), 1)
    assert judge(other, Attempt("x", refuse)).verdict is Verdict.WRONG_REASON
