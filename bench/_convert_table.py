"""What the int8 files are worth: rows, who wins, and the table of docs/design/search.md. Pure.

A square is a model in a format. In each, ours is held against the best of the others that is inside
the budget: the smallest file after zstd, and the fastest, which need not be the same one. Of ours
the file that was asked to be small is held against the one, that asked to be fast against the
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OURS = "edgefleet-search"
FAST = "edgefleet-latency"
FIXED = "edgefleet-fixed"
FLOAT = "float32"
SIZE_ROOM, LATENCY_ROOM = 1.01, 1.05
EXACT_DB = 100.0
"""Nothing that computes in 8 bits comes near it: files in float16 have some 80 dB."""


@dataclass
class Row:
    """A file of one model. Shares with their 95 % intervals.

    `takes_int8`: its caller has to round; it is timed with TFLite's own rounding in front.
    `drop`: accuracy that is lost; where no class is known, the share decided otherwise.
    """

    model: str
    format: str
    by: str
    recipe: str = ""
    error: str = ""
    accuracy: tuple[float, float, float] | None = None
    drop: float | None = None
    agreement: tuple[float, float, float] | None = None
    sqnr_db: float | None = None
    size: int | None = None
    size_zstd: int | None = None
    p50_us: float | None = None
    seconds: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None
    is_over: bool = False
    takes_int8: bool = False
    published: str = ""
    labelled: str = ""

    @property
    def is_inside(self) -> bool:
        """Whether it is there, in 8 bits, and inside the budget."""
        return not self.error and not self.is_over and not self.is_float_again

    @property
    def is_float_again(self) -> bool:
        """Whether the float model was given back: that is no int8 file, and anybody could."""
        return self.by != FLOAT and self.sqnr_db is not None and self.sqnr_db >= EXACT_DB

    @property
    def is_other(self) -> bool:
        """Whether others made it."""
        return self.by not in (OURS, FAST, FIXED, FLOAT)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """`wins.size`, `wins.latency`, `budget_violations`, squares won, tied and lost, losses."""
    counts = {"size": [0, 0, 0], "latency": [0, 0, 0]}
    losses: list[dict[str, Any]] = []
    for small in (row for row in rows if row.by == OURS):
        square = [row for row in rows if (row.model, row.format) == (small.model, small.format)]
        fast = next((row for row in square if row.by == FAST), small)
        if not any(row.is_other for row in square):
            continue  # nobody was asked
        fit = [row for row in square if row.is_other and row.is_inside]
        for what, field, room, mine in (
            ("size", "size_zstd", SIZE_ROOM, small),
            ("latency", "p50_us", LATENCY_ROOM, fast),
        ):
            best = min(fit, key=lambda row: getattr(row, field), default=None)
            outcome = _outcome(mine, best, field, room)
            counts[what][outcome] += 1
            if outcome == 2:
                losses.append(_loss(what, field, mine, best))
    over = [f"{row.model} {row.format} {row.by}" for row in rows if row.is_over]
    failed = [f"{row.model} {row.format} {row.by}: {row.error}" for row in rows if row.error]
    return {
        "wins": {what: found[0] for what, found in counts.items()},
        "won_tied_lost": counts,
        "losses": losses,
        "budget_violations": sum(name.endswith((OURS, FAST)) for name in over),
        "over_budget": over,
        "failed": failed,
    }


def _outcome(mine: Row, best: Row | None, field: str, room: float) -> int:
    """0 won, 1 tied, 2 lost. Outside the budget nothing is won."""
    if not mine.is_inside:
        return 1 if best is None else 2
    if best is None:
        return 0
    a, b = getattr(mine, field), getattr(best, field)
    if a * room < b:
        return 0
    return 2 if b * room < a else 1


def _loss(what: str, field: str, mine: Row, best: Row | None) -> dict[str, Any]:
    assert best is not None  # nobody is lost to
    a, b = getattr(mine, field), getattr(best, field)
    return {
        "model": mine.model,
        "format": mine.format,
        "what": what,
        "ours": a,
        "theirs": b,
        "by": best.by,
        "more_percent": None if a is None else round(100 * (a / b - 1), 1),
        "why": why(mine, best, what),
    }


def why(mine: Row, best: Row, what: str) -> str:
    """What the two files have that differs."""
    if mine.error:
        return f"no file of ours: {mine.error}"
    if mine.is_over:
        return f"ours is outside the budget on all held-out examples (drop {mine.drop:.4f})"
    theirs = best.recipe
    found = []
    if "tensor" in theirs or best.by == "onnxruntime-default" or best.by == "olive-default":
        found.append("theirs has one scale a tensor")
    if "dynamic" in theirs or "weights" in theirs:
        found.append("theirs has dynamic ranges, which tflite-runtime 2.14 computes wrongly")
    if "float" in mine.recipe or "linear" in mine.recipe:
        found.append(f"ours leaves something in float32 ({mine.recipe})")
    if what == "latency" and (mine.size_zstd or 0) < (best.size_zstd or 0):
        found.append("ours is smaller")
    noise = (mine.sqnr_db or 0) - (best.sqnr_db or 0)
    found.append(f"SQNR {mine.sqnr_db} against {best.sqnr_db} dB ({noise:+.1f})")
    return "; ".join(found)


def lines(rows: Sequence[Row]) -> list[str]:
    """For a terminal."""
    columns = ("accuracy", "agree", "SQNR", "kB", "zstd", "p50 µs", "s", "cpu s", "MB", "recipe")
    head = "{:>22} {:>7} {:>6} {:>7} {:>7} {:>8} {:>6} {:>6} {:>5} {}".format(*columns)
    found = [f"{'model':24} {'format':6} {'by':26} {head}"]
    for row in rows:
        head = f"{row.model:24} {row.format:6} {row.by:26}"
        if row.error:
            found.append(f"{head} failed: {row.error}")
            continue
        share = "-" if row.accuracy is None else "{:.4f} ({:.4f}-{:.4f})".format(*row.accuracy)
        agree = "-" if row.agreement is None else f"{row.agreement[0]:.4f}"
        found.append(
            f"{head} {share:>22} {agree:>7} {row.sqnr_db:6.1f} {_kb(row.size):>7} "
            f"{_kb(row.size_zstd):>7} {row.p50_us or 0:8.1f} {row.seconds or 0:6.1f} "
            f"{row.cpu_s or 0:6.1f} {row.peak_mb or 0:5.0f} {row.recipe}"
            f"{' OVER' if row.is_over else ''}"
        )
    return found


def page(rows: Sequence[Row], found: dict[str, Any], versions: str) -> str:
    """The measured part of the page, in Markdown."""
    text = [versions, ""]
    for what, (won, tied, lost) in found["won_tied_lost"].items():
        text.append(f"- **{what}**: {won} squares won, {tied} tied, {lost} lost")
    text += [f"- budget violations of ours: {found['budget_violations']}", ""]
    text += _losses(found["losses"])
    head = ("model", "by", "accuracy (95 %)", "agreement", "SQNR dB", "kB", "zstd kB", "p50 µs")
    head += ("CPU s", "MB", "recipe")
    text += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    text += [_cells(row) for row in rows]
    notes = dict.fromkeys(f"{row.model}: {row.labelled}" for row in rows if row.labelled)
    return "\n".join([*text, "", *(f"- {note}" for note in notes)])


def _losses(losses: Sequence[dict[str, Any]]) -> list[str]:
    if not losses:
        return []
    text = ["| lost | of | ours | theirs | by | more | because |", "|---|---|---|---|---|---|---|"]
    for one in losses:
        more = "-" if one["more_percent"] is None else f"{one['more_percent']} %"
        text.append(
            f"| {one['model']} {one['format']} | {one['what']} | {one['ours']} | {one['theirs']} "
            f"| {one['by']} | {more} | {_plain(one['why'])} |"
        )
    return [*text, ""]


def _cells(row: Row) -> str:
    head = f"| {row.model} {row.format} | {row.by} "
    if row.error:
        failed = f"failed: {_plain(row.error[:120])}"
        return f"{head}| {failed} | | | | | | {row.cpu_s or 0:.0f} | {row.peak_mb or 0:.0f} | |"
    share = "-" if row.accuracy is None else "{:.4f} ({:.4f}-{:.4f})".format(*row.accuracy)
    share += f"; publisher: {row.published}" if row.published else ""
    agree = "-" if row.agreement is None else f"{row.agreement[0]:.4f}"
    took = " | " if row.cpu_s is None else f"{row.cpu_s:.0f} | {row.peak_mb:.0f}"
    over = " **over**" if row.is_over else " *float again*" if row.is_float_again else ""
    return (
        f"{head}| {share}{over} | {agree} | {row.sqnr_db} | {_kb(row.size)} | {_kb(row.size_zstd)} "
        f"| {row.p50_us:.0f} | {took} | {_plain(row.recipe)} |"
    )


def _kb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e3:.1f}"


def _plain(words: str) -> str:
    return words.replace("|", "/").replace("\n", " ")
