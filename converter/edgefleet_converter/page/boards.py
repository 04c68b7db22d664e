"""The part of the page that shows what boards measured; nothing where no board did."""

from __future__ import annotations

from edgefleet_contract.canonical import Json
from edgefleet_converter.page.markup import Child, el
from edgefleet_converter.page.parts import table, titled
from edgefleet_converter.page.told import MAX_ITEMS, number, tables_of, text

_HEADS = ("variant", "board", "runtime", "#load ms", "#p50 µs", "#p95 µs", "#p99 µs", "#MiB")
_FIGURES = ("load_ms", "p50_us", "p95_us", "p99_us", "ram_mib")


def boards(report: Json) -> Child:
    """Each variant on each board, and what the boards are."""
    rows = [
        [text(variant.get("name")), *_cells(on)]
        for variant in tables_of(report, "variants")
        for on in tables_of(variant, "boards")
    ]
    if not rows:
        return None
    about = [el("li", _words(one)) for one in tables_of(report, "boards")]
    return titled("On boards", table(_HEADS, rows[:MAX_ITEMS]), el("ul", about, class_="muted"))


def _cells(on: dict[str, Json]) -> list[Child]:
    board = text(on.get("board"))
    if trouble := text(on.get("trouble")):
        return [board, trouble, *([el("td", "-", class_="n")] * len(_FIGURES))]
    found = [number(on.get(name)) for name in _FIGURES]
    return [
        board,
        text(on.get("runtime")),
        *(el("td", "-" if one is None else f"{one:,.1f}", class_="n") for one in found),
    ]


def _words(told: dict[str, Json]) -> str:
    board = told.get("board")
    what = board if isinstance(board, dict) else {}
    said = [f"{text(told.get('name'))}: {text(what.get('machine'))}, {text(what.get('os'))}"]
    if told.get("way") == "here":
        said.append("measured on the desk, not on a board")
    if what.get("is_emulated") is True:
        said.append("the processor is emulated: times are not those of a board")
    after = told.get("after")
    state = after if isinstance(after, dict) else {}
    if (celsius := number(state.get("celsius"))) is not None:
        said.append(f"{celsius:.0f} °C afterwards")
    held = state.get("throttled")
    if isinstance(held, list) and held:
        said.append(f"held back: {', '.join(map(text, held[:8]))}")
    return "; ".join(said)
