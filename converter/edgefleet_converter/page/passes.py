"""The part of the page that shows what passes over finished files brought; nothing without one."""

from __future__ import annotations

from edgefleet_contract.canonical import Json
from edgefleet_converter.page.markup import Child, Html, el
from edgefleet_converter.page.parts import table, titled
from edgefleet_converter.page.told import MAX_ITEMS, number, tables_of, text

_HEADS = ("variant", "pass", "#size, kB", "#load, ms", "#private memory, MiB")
_NOTE = "Before and after; times and memory were measured in turns on the machine of the build."


def passes(report: Json) -> Child:
    """Each pass of each variant: what it was before, and after."""
    rows = [
        [
            text(variant.get("name")),
            text(one.get("name")),
            _moved(one, "size", 1000),
            _moved(one, "load_ms", 1),
            _moved(one, "ram_mib", 1),
        ]
        for variant in tables_of(report, "variants")
        for one in tables_of(variant, "passes")
    ]
    if not rows:
        return None
    return titled("Passes", table(_HEADS, rows[:MAX_ITEMS]), el("p", _NOTE, class_="muted"))


def _moved(one: dict[str, Json], name: str, by: float) -> Html:
    before, after = number(one.get(f"{name}_before")), number(one.get(name))
    if before is None or after is None:
        return el("td", "-", class_="n")
    return el("td", f"{before / by:,.1f} → {after / by:,.1f}", class_="n")
