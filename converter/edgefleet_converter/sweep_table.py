"""A sweep over lambda, and what cutting channels did, as tables for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from edgefleet_contract import codec
from edgefleet_converter.channels import Channels
from edgefleet_converter.metrics import EXACT_DB, Share
from edgefleet_converter.proof_words import proof_in_words
from edgefleet_converter.report import Point
from edgefleet_converter.sweep import Sweep

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
    if found.proof is not None:
        said = f"lambda {found.chosen:.3g}: {proof_in_words(codec.encode(found.proof))}"
        console.print(said, highlight=False, soft_wrap=True)
    elif found.none_inside:
        console.print(found.none_inside, highlight=False, soft_wrap=True)


def print_channels(found: Channels, console: Console) -> None:
    """One line a file; how many times as fast as the whole float model it is."""
    table = Table(title="channels cut", title_justify="left")
    for name in ("model", "size kB", "accuracy (95 %)", "agreement", "p50 µs", "speed-up"):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    first = found.rows[0].measured
    for row in found.rows:
        speed = row.measured
        table.add_row(
            row.name,
            f"{row.size / 1000:.1f}",
            _interval(row.accuracy),
            "-" if row.agreement is None else f"{100 * row.agreement.value:.2f} %",
            "-" if speed is None else f"{speed.p50_us:.0f}",
            "-" if speed is None or first is None else f"{first.p50_us / speed.p50_us:.2f}",
        )
    console.print(table)
    console.print(
        f"parameters {found.parameters_before} -> {found.parameters_after}, multiply-adds "
        f"{found.multiply_adds_before} -> {found.multiply_adds_after}; written to {found.path}",
        highlight=False,
        soft_wrap=True,
    )
    if found.proof is not None:
        said = f"{found.steps} of {found.of_steps} steps: "
        said += proof_in_words(codec.encode(found.proof))
        console.print(said, highlight=False, soft_wrap=True)


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
