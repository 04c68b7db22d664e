"""Which blocks are taken for lost: played over a line that is a clock and a queue."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from edgefleet_agent.transfer.flight import Flight
from edgefleet_agent.transfer.window import FIRST_WAIT_S, Window

LENGTH, FIRST, BLOCKS = 65_536, 4_096, 20
LOOK_S = 0.25


@dataclass
class Line:
    """So many bytes a second, each `delay_s` later; loses what is sent under some numbers."""

    rate: float
    delay_s: float
    loses: frozenset[int] = frozenset()
    free_at: float = 0.0
    sent: list[int] = field(default_factory=list)
    coming: list[tuple[float, int]] = field(default_factory=list)

    def send(self, offset: int, size: int, *, now: float) -> None:
        number = len(self.sent)
        self.sent.append(offset)
        if number not in self.loses:
            self.free_at = max(self.free_at, now + self.delay_s / 2) + size / self.rate
            self.coming.append((self.free_at + self.delay_s / 2, offset))


def play(line: Line) -> None:
    """A transfer: a short block, and then the others."""
    window = Window(16)
    flight = Flight(window, LENGTH)
    missing, to_ask, now = {0: FIRST}, [0], 0.0
    later = {FIRST: LENGTH - FIRST} | {n * LENGTH: LENGTH for n in range(1, BLOCKS)}
    while missing:
        to_ask = sorted(to_ask + flight.take_late(now=now))
        while to_ask and len(flight) < window.size:
            offset = to_ask.pop(0)
            flight.ask(offset, missing[offset], now=now)
            line.send(offset, missing[offset], now=now)
        if not line.coming or line.coming[0][0] > now + LOOK_S:
            now += LOOK_S
            continue
        now, offset = line.coming.pop(0)
        if missing.pop(offset, 0):
            flight.came(offset, now=now)
            missing |= later
            to_ask += later
            later = {}
        else:
            flight.hear(now=now)
        to_ask = [one for one in to_ask if one in missing]


@pytest.mark.parametrize("rate", [3_000, 8_000, 20_000, 125_000, 10_000_000])
@pytest.mark.parametrize("delay_s", [0.0, 0.1, 2.0])
def test_a_slow_line_is_sent_each_block_once(rate: float, delay_s: float) -> None:
    line = Line(rate, delay_s)
    play(line)
    guessed_wrong = FIRST / rate + delay_s > FIRST_WAIT_S  # nothing is known of a line as yet
    again = {offset for offset, times in Counter(line.sent).items() if times > 1}
    assert again == ({0} if guessed_wrong else set())


@pytest.mark.parametrize("lost", [{0}, {1}, {5, 6, 7}, {20}, set(range(3, 12))])
def test_what_was_lost_is_asked_for_again_and_nothing_else(lost: set[int]) -> None:
    line = Line(125_000, 0.1, loses=frozenset(lost))
    play(line)
    assert len(line.sent) == BLOCKS + 1 + len(lost)


def test_a_block_that_was_overtaken_is_late_though_others_come() -> None:
    flight = Flight(Window(8), LENGTH)
    for offset in range(3):
        flight.ask(offset, LENGTH, now=0.0)
    flight.came(1, now=FIRST_WAIT_S)
    wait_s = FIRST_WAIT_S * 3  # after one measurement
    assert flight.take_late(now=wait_s) == []
    flight.hear(now=wait_s)
    assert flight.take_late(now=wait_s + 0.1) == [0]
    assert len(flight) == 1


def test_nothing_is_on_its_way_once_the_link_went() -> None:
    flight = Flight(Window(8), LENGTH)
    flight.ask(7, LENGTH, now=0.0)
    assert flight.take_all() == [7]
    assert flight.take_late(now=1000.0) == []
