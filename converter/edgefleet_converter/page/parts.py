"""Pieces that all parts of the page use: a titled part, a table, a list of facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgefleet_converter.page.markup import Child, Html, el


def titled(title: str, *children: Child) -> Html:
    """A part of the page."""
    return el("section", el("h2", title), children)


def of(title: str, owner: str) -> str:
    """A title, and whose it is."""
    return f"{title}: {owner}" if owner else title


def table(heads: Sequence[str], rows: Iterable[Sequence[Child]]) -> Html:
    """A table; a head that begins with `#` stands over figures. A cell may be a `td` already."""
    head = [
        el("th", name[1:], class_="n") if name.startswith("#") else el("th", name) for name in heads
    ]
    body = [el("tr", [_cell(cell) for cell in row]) for row in rows]
    return el("div", el("table", el("thead", el("tr", head)), el("tbody", body)), class_="scroll")


def facts(rows: Iterable[tuple[str, Child]]) -> Html:
    """Names with what is said of them; what is not said is left out."""
    body = [el("tr", el("th", name), el("td", said, class_="text")) for name, said in rows if said]
    return el("div", el("table", el("tbody", body)), class_="scroll")


def _cell(cell: Child) -> Html:
    if isinstance(cell, Html) and cell.startswith("<td"):
        return cell
    return el("td", cell)
