"""`edge-convert diff` for people, and what it costs to send what changed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefleet_contract.bundle import Manifest
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.comparing import Comparison, Fate, FigureChange
from edgefleet_converter.page.markup import plain
from edgefleet_converter.transfer_size import Cost, cost


def price(found: Comparison, old: Path, new: Path) -> dict[str, Cost]:
    """What sending each file of the new bundle costs that the old one has not.

    Raises:
        OperatorError: a file cannot be read.
    """
    costs: dict[str, Cost] = {}
    for file in found.files:
        if file.fate is Fate.ADDED and file.after is not None:
            costs[file.path] = Cost(file.after.size, is_delta=False)
        elif file.fate is Fate.CHANGED:
            try:
                before, after = ((root / file.path).read_bytes() for root in (old, new))
            except OSError as error:
                raise OperatorError(f"cannot read {error.filename}: {error.strerror}") from None
            costs[file.path] = cost(before, after)
    return costs


def print_comparison(
    a: Manifest, b: Manifest, found: Comparison, costs: dict[str, Cost], console: Console
) -> None:
    """What is said otherwise, the figures that moved, the files that changed."""
    if found.is_same:
        console.print(f"{a.name} and {b.name} are the same")
        return
    if found.said:
        table = Table(title=f"{a.name} and {b.name}", title_justify="left")
        for name in ("what", a.name, b.name):
            table.add_column(name)
        for one in found.said:
            table.add_row(*(escape(plain(text)) for text in (one.what, one.before, one.after)))
        console.print(table)
    if found.figures:
        table = Table(title="figures", title_justify="left")
        table.add_column("variant")
        table.add_column("figure")
        for name in (a.name, b.name, "change"):
            table.add_column(name, justify="right")
        for figure in found.figures:
            told = (_number(figure, figure.before), _number(figure, figure.after), _moved(figure))
            table.add_row(escape(plain(figure.variant)), figure.figure, *told)
        console.print(table)
    _print_files(found, costs, console)


def _print_files(found: Comparison, costs: dict[str, Cost], console: Console) -> None:
    table = Table(title="files", title_justify="left")
    for name in ("file", "", "bytes", "was", "to send, about"):
        table.add_column(name, justify="left" if name in ("file", "") else "right")
    for file in found.files:
        if file.fate is Fate.SAME:
            continue
        price_of = costs.get(file.path)
        table.add_row(
            file.path,
            file.fate.value,
            str(file.after.size) if file.after else "-",
            str(file.before.size) if file.before else "-",
            "-"
            if price_of is None
            else f"{price_of.size}{' (delta)' if price_of.is_delta else ''}",
        )
    same = sum(file.fate is Fate.SAME for file in found.files)
    table.caption = f"{same} files are the same"
    table.caption_justify = "left"
    console.print(table)


def _number(figure: FigureChange, value: float | None) -> str:
    if value is None:
        return "-"
    if figure.figure in ("accuracy", "agreement"):
        return f"{100 * value:.2f} %"
    return f"{value:.0f}" if figure.figure.startswith("size") else f"{value:.1f}"


def _moved(figure: FigureChange) -> str:
    if figure.before is None or figure.after is None:
        return ""
    change = figure.after - figure.before
    if figure.figure in ("accuracy", "agreement"):
        return f"{100 * change:+.2f} points"
    if figure.figure == "sqnr_db":
        return f"{change:+.1f} dB"
    return f"{100 * change / figure.before:+.1f} %" if figure.before else f"{change:+.1f}"
