"""A sweep over lambda as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from edgefleet_converter.metrics import EXACT_DB, Share
from edgefleet_converter.sweep import Point, Sweep

_COLUMNS = (
    *("lambda", "not zero", "share", "loss", "accuracy (95 %)", "agreement", "SQNR dB"),
    *("size kB", "zstd kB", "p50 µs"),
)


def print_sweep(found: Sweep, console: Console) -> None:
    """One line a lambda, the float model before them."""
    table = Table(title="pruned, then int8", title_justify="left")
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    weights = found.points[0].weights
    table.add_row(
        *("float", str(weights), "-", _loss(found.loss), _interval(found.accuracy)),
        *("-", "-", f"{found.size / 1000:.1f}", "-", "-"),
    )
    for point in found.points:
        table.add_row(*_cells(point))
    console.print(table)


def _cells(point: Point) -> tuple[str, ...]:
    return (
        f"{point.lambda_:.3g}",
        str(point.norm0),
        f"{100 * point.norm0 / point.weights:.1f} %",
        _loss(point.loss),
        _interval(point.accuracy),
        "-" if point.agreement is None else f"{100 * point.agreement.value:.2f} %",
        "exact" if point.sqnr_db >= EXACT_DB else f"{point.sqnr_db:.1f}",
        f"{point.size / 1000:.1f}",
        f"{point.size_zstd / 1000:.1f}",
        "-" if point.measured is None else f"{point.measured.p50_us:.0f}",
    )


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _interval(share: Share | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share.value:.2f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"
