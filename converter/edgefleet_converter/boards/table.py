"""The figures of boards, on a terminal or in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefleet_contract.measuring import Moment
from edgefleet_converter.boards.figures import BoardReport, Heard, OnBoard
from edgefleet_converter.report import Report


def print_boards(found: Sequence[Heard], rounds: int, console: Console) -> None:
    """A table for each board: one line a model."""
    for one in found:
        print_board(one.report, one.models, rounds, console)


def print_report_boards(report: Report, console: Console) -> None:
    """The boards of a build; none where it was measured on no board."""
    for board in report.boards:
        models = {
            variant.name: on
            for variant in report.variants
            for on in variant.boards
            if on.board == board.name
        }
        print_board(board, models, max((on.rounds for on in models.values()), default=1), console)


def print_board(
    report: BoardReport, models: dict[str, OnBoard], rounds: int, console: Console
) -> None:
    """One board: what it is, how it was doing, and what each model costs there."""
    table = Table(title=escape(report.name), title_justify="left")
    table.add_column("model", no_wrap=True)
    table.add_column("runtime", overflow="fold")
    for name in ("load ms", "p50 µs", "p95 µs", "p99 µs", "MiB", "runs", "max diff"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in models.items():
        if one.trouble:
            table.add_row(escape(name), escape(one.trouble), *["-"] * 7)
            continue
        table.add_row(
            escape(name),
            escape(one.runtime),
            f"{one.load_ms:.1f}",
            f"{one.p50_us:.0f}",
            f"{one.p95_us:.0f}",
            f"{one.p99_us:.0f}",
            f"{one.ram_mib:.1f}",
            str(one.runs),
            f"{one.max_abs_err:.3g}",
        )
    console.print(table)
    console.print("; ".join(words(report, rounds)), markup=False, highlight=False)


def words(report: BoardReport, rounds: int) -> list[str]:
    """What a board is and how it was doing."""
    board = report.board
    found = [
        f"{board.model}, {board.machine}, {board.cpus} cores, {board.memory_mib} MiB, {board.os}",
        f"{board.threads} thread{'s' if board.threads > 1 else ''} an inference",
    ]
    if rounds > 1:
        found.append(f"medians of {rounds} rounds")
    if report.way == "here":
        found.append("measured on this machine, not on a board")
    if board.is_emulated:
        found.append("the processor is emulated: times are not those of a board")
    return [*found, *_state(report.before, report.after)]


def _state(before: Moment, after: Moment) -> list[str]:
    found = [f"load {before.load1:g}"]
    if before.celsius is not None and after.celsius is not None:
        found.append(f"{before.celsius:.0f} to {after.celsius:.0f} °C")
    if after.mhz is not None:
        found.append(f"{after.mhz:.0f} MHz {after.governor}".strip())
    if after.throttled:
        found.append(f"held back: {', '.join(after.throttled)}")
    return found
