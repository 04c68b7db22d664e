"""The table of a search, on a terminal or in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefleet_converter.metrics import Share
from edgefleet_converter.search.figures import CandidateReport, Drop, Fidelity, SearchReport


def print_search(report: SearchReport, console: Console) -> None:
    """One line a candidate: the choice is marked `>`, the Pareto front `*`."""
    table = Table(title=f"{report.target}: {report.objective}", title_justify="left")
    table.add_column("")
    table.add_column("candidate", no_wrap=True)
    has_metric = any(one.fidelity and one.fidelity.metric is not None for one in report.candidates)
    figures = ("SQNR dB", "accuracy", "drop (95 %)", "agreement", *(["metric"] * has_metric))
    for name in (*figures, "kB", "zstd kB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("p50 µs", justify="right")
    table.add_column("outside the budget", overflow="fold")
    for one in sorted(report.candidates, key=_order):
        table.add_row(
            (">" if one.name == report.chosen else "") + ("*" if one.is_front else ""),
            escape(one.name),
            *_fidelity(one.fidelity)[: len(figures)],
            f"{one.size / 1000:.1f}" if one.size else "-",
            f"{one.size_zstd / 1000:.1f}" if one.size else "-",
            "-" if one.p50_us is None else f"{one.p50_us:.1f}",
            escape(one.outside),
        )
    console.print(table)
    confirmed = "" if report.confirmed is None else ", ".join(_words(report.confirmed))
    late = "" if report.is_complete else "; the time limit ended the search"
    names = ", ".join(one.name for one in report.boards) or f"this machine ({report.hardware})"
    where = "" if report.hardware is None else f"; times are of {names}"
    console.print(
        f"chosen on {report.search_examples} examples: {report.chosen}{late}{where}\n"
        f"confirmed on {report.confirm_examples} others: {confirmed}",
        markup=False,
        highlight=False,
    )


def _order(one: CandidateReport) -> tuple[bool, float, str]:
    return bool(one.outside), -(one.fidelity.sqnr_db if one.fidelity else -1e9), one.name


def _fidelity(fidelity: Fidelity | None) -> tuple[str, str, str, str, str]:
    if fidelity is None:
        return "-", "-", "-", "-", "-"
    return (
        f"{fidelity.sqnr_db:.1f}",
        _share(fidelity.accuracy),
        _drop(fidelity.accuracy_drop),
        _share(fidelity.agreement),
        "-" if fidelity.metric is None else f"{fidelity.metric:.4g}",
    )


def _words(fidelity: Fidelity) -> list[str]:
    found = [f"SQNR {fidelity.sqnr_db:.1f} dB"]
    if fidelity.accuracy is not None:
        found.append(f"accuracy {_share(fidelity.accuracy)}, drop {_drop(fidelity.accuracy_drop)}")
    if fidelity.agreement is not None:
        found.append(f"agreement {_share(fidelity.agreement)}")
    if fidelity.metric is not None:
        found.append(f"metric {fidelity.metric:.4g}")
    return found


def _share(share: Share | None) -> str:
    return "-" if share is None else f"{100 * share.value:.2f} %"


def _drop(drop: Drop | None) -> str:
    if drop is None:
        return "-"
    return f"{100 * drop.value:.2f} ({100 * drop.low:.1f} to {100 * drop.high:.1f})"
