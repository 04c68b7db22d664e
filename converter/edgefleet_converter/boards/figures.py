"""What boards said, made into what a report holds and a choice goes by: rounds become one. Pure.

Times are the medians over rounds, memory is the most of any. A candidate that fails in one round
has failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from edgefleet_contract.measuring import Board, MeasureReport, Moment
from edgefleet_contract.reasons import Reason

DESK: Final = "this machine"
_PASSED_OVER: Final = (Reason.NO_VARIANT, Reason.WRONG_HARDWARE)


@dataclass(frozen=True, slots=True)
class BoardReport:
    """A board that measured: `name` tells it from the others; `way` is how it was asked.

    `way` is `here` where no board was: the figures are those of the desk, and say so.
    """

    name: str
    way: str
    board: Board
    before: Moment
    after: Moment


@dataclass(frozen=True, slots=True)
class OnBoard:
    """One model on one board. Times as in `Figures`; `trouble` says why there are none.

    `is_passed_over`: the board has nothing to run it with, and takes another variant.
    """

    board: str
    hw: str
    runtime: str = ""
    accelerator: str = ""
    open_ms: float = 0.0
    load_ms: float = 0.0
    p50_us: float = 0.0
    p95_us: float = 0.0
    p99_us: float = 0.0
    ram_mib: float = 0.0
    rounds: int = 0
    runs: int = 0
    disturbed: int = 0
    max_abs_err: float = 0.0
    trouble: str = ""
    is_passed_over: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What one board said, by the name of the candidate."""

    report: BoardReport
    models: dict[str, OnBoard]


def heard(found: MeasureReport, *, name: str, way: str) -> Heard:
    """A board's answer, with its rounds made one."""
    names = dict.fromkeys(result.name for result in found.results)
    models = {one: _on_board(found, one, name) for one in names}
    return Heard(BoardReport(name, way, found.board, found.before, found.after), models)


def name_board(board: Board, way: str, taken: Iterable[str]) -> str:
    """What a board is called in a report: its model and class, and a number where there are two.

    An address is nobody's business, and is not in it.
    """
    what = DESK if way == "here" else board.model
    imitated = ", emulated" if board.is_emulated else ""
    plain = name = f"{what} ({board.hw}{imitated})"
    number, held = 1, set(taken)
    while name in held:
        number += 1
        name = f"{plain} {number}"
    return name


def slowest_p50(found: Sequence[OnBoard]) -> float | None:
    """The time of a candidate on the slowest of its boards; None where it has none."""
    return max((one.p50_us for one in found if not one.trouble), default=None)


def first_trouble(found: Sequence[OnBoard]) -> str:
    """Why a candidate may not be taken: what failed on a board that has a runtime for it."""
    bad = (one for one in found if one.trouble and not one.is_passed_over)
    return next((f"on {one.board}: {one.trouble}" for one in bad), "")


def _on_board(found: MeasureReport, name: str, board: str) -> OnBoard:
    mine = [one for one in found.results if one.name == name]
    hw = found.board.hw
    for one in mine:
        if one.figures is None:
            reason = one.reason or Reason.INTERNAL
            detail = f": {one.detail}" if one.detail else ""
            return OnBoard(
                board, hw, trouble=f"{reason}{detail}", is_passed_over=reason in _PASSED_OVER
            )
    figures = [one.figures for one in mine if one.figures is not None]
    first = figures[0]
    version = found.board.runtimes.get(first.engine, "")
    return OnBoard(
        board=board,
        hw=hw,
        runtime=f"{first.engine} {version}".strip(),
        accelerator=first.accelerator,
        **{field: median(getattr(one, field) for one in figures) for field in _TIMES},
        ram_mib=max(one.ram_mib for one in figures),
        rounds=len(figures),
        runs=sum(one.runs for one in figures),
        disturbed=sum(one.disturbed for one in figures),
        max_abs_err=max(one.max_abs_err for one in figures),
    )


_TIMES: Final = ("open_ms", "load_ms", "p50_us", "p95_us", "p99_us")
