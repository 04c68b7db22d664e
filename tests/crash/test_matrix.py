"""The kill matrix, as far as it fits into every run; `make kill-matrix` has all of it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_contract.phases import Phase
from tests.crash import matrix, table
from tests.crash.cases import Start, cells
from tests.crash.matrix import Theater
from tests.crash.moments import Claim, Moment, What, violations
from tests.crash.squares import Square


@pytest.fixture(scope="module")
def theater() -> Iterator[Theater]:
    """In memory, where there is one: a disk that really syncs would only cost time."""
    logging.disable(logging.CRITICAL)  # thousands of refusals would be logged
    memory = Path("/dev/shm")  # a fresh folder below it
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as room,
        matrix.theater(Path(room)) as opened,
    ):
        yield opened
    logging.disable(logging.NOTSET)


def test_every_phase_of_an_install_is_under_every_fault_or_cannot_be() -> None:
    found = cells()
    assert {cell.scene.state for cell in found} == set(Phase)
    squares = {(cell.scene.state, cell.start, cell.fault.name) for cell in found}
    faults = {fault for _, _, fault in squares}
    assert len(squares) == len(found) == len(Phase) * len(Start) * len(faults)
    assert sum(len(cell.fault.plays) for cell in found if not cell.why_not) >= 700


def test_a_device_survives_every_fault_in_every_state(theater: Theater) -> None:
    """Every seventeenth case."""
    found = theater.play_all(every=17)
    assert [f"{word} ({cell.name})" for cell in found for word in cell.wrong] == []
    assert sum(cell.tried for cell in found) >= 55


@pytest.mark.parametrize(
    ("mutant", "state", "fault", "sign"),
    [
        ("hasty journal", Phase.ACCEPTED, "killed after it", "the order's number falls"),
        ("serves late", Phase.SELFTEST, "killed after it", "it does not start"),
        ("no way out", Phase.ROLLING_BACK, "error once", "stuck in rolling_back"),
    ],
)
def test_an_agent_that_is_wrong_on_purpose_is_found_out(
    theater: Theater, mutant: str, state: Phase, fault: str, sign: str
) -> None:
    (cell,) = (
        cell
        for cell in cells()
        if (cell.scene.state, cell.start, cell.fault.name) == (state, Start.STANDING, fault)
    )
    wrong = theater.play(cell, cell.fault.plays[-1], mutant=mutant)
    assert any(sign in word for word in wrong), wrong


CLAIM = Claim(before=(1, 2), wanted=(3, 3), ends=frozenset({Phase.COMMITTED}), last=5)
STARTED = Moment(What.STARTED, Phase.COMMITTED, 2, 2, committed=2, serves=2, floors=(1, 1))
QUIET = Moment(What.QUIET, Phase.COMMITTED, 3, 3, committed=3, serves=3, floors=(1, 1))
CLEAN = Moment(What.CLEAN, Phase.COMMITTED, 9, 9, committed=5, serves=5, floors=(1, 1))


@pytest.mark.parametrize(
    ("life", "sign"),
    [
        ([Moment(What.STARTED, committed=2)], "a start serves nothing"),
        ([Moment(What.STARTED, committed=1, serves=1)], "2 was committed, a start finds 1"),
        ([Moment(What.SERVES, Phase.SELFTEST, candidate=3, serves=3)], "was never committed"),
        ([STARTED, Moment(What.SAVED, Phase.COMMITTED, 2, 1, 2, serves=2)], "number falls"),
        ([STARTED, Moment(What.SAVED, Phase.IDLE, floors=(1, 0))], "floors fall"),
        ([Moment(What.SAVED, quarantined=(3,))], "3 is quarantined without guilt"),
        ([Moment(What.QUIET, Phase.ROLLING_BACK, 3)], "stuck in rolling_back"),
        ([Moment(What.QUIET, Phase.CANCELED, is_pending=True)], "an order waits for ever"),
        ([Moment(What.QUIET, Phase.FAILED, 3, 3, 2, serves=2)], "nothing says why"),
        ([Moment(What.DIED, detail="KeyError()")], "the agent dies: KeyError()"),
        ([STARTED, QUIET, Moment(What.CLEAN, detail="a.part")], "left over: a.part"),
        ([STARTED], "it never comes to rest"),
    ],
)
def test_each_rule_can_be_broken(life: list[Moment], sign: str) -> None:
    assert list(violations([[STARTED, QUIET, CLEAN]], CLAIM)) == []
    assert any(sign in word for word in violations([life], CLAIM))


def test_the_page_has_every_square_and_says_why_one_cannot_be(tmp_path: Path) -> None:
    squares = [
        Square("shadow", "a model serves", "hang", 2, 0),
        Square("shadow", "a first install", "hang", 0, 0, "there is nothing beside it"),
        Square("shadow", "a model serves", "kill", 1, 1),
    ]
    table.write(tmp_path / "1.json", squares)
    page = table.render(table.read(tmp_path / "1.json"))
    assert "| state | hang | kill |" in page
    assert "| shadow | 2 a | 1 **1 bad** |" in page
    assert "- a: there is nothing beside it" in page
    assert "3 tried, 1 violations" in page
    assert [square.is_good for square in squares] == [True, True, False]
