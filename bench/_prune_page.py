"""The tables of `bench prune`, as they stand in docs/design/pruning.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench._prune_channels import Cut
from bench._prune_lambda import Row
from bench._prune_proof import Kept
from bench._prune_shop import Figures

PAGE = Path(__file__).parents[1] / "docs" / "design" / "pruning.md"
END = "<!-- end -->\n"


def tables(rows: Sequence[Row], cuts: Sequence[Cut], held: Sequence[Kept]) -> dict[str, str]:
    """Markdown by the name of its mark; of what was measured alone."""
    found: dict[str, str] = {}
    if rows:
        found["lambda"] = _lambda(rows)
        found["layers"] = _layers(rows)
    if cuts:
        found["channels"] = _channels(cuts)
    if held:
        found["proof"] = _proof(held)
    return found


def write(rows: Sequence[Row], cuts: Sequence[Cut], held: Sequence[Kept]) -> None:
    """Put the tables between their marks."""
    text = PAGE.read_text("utf-8")
    for name, table in tables(rows, cuts, held).items():
        begin = f"<!-- measured: python -m bench prune ({name}) -->\n"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(END)
        text = f"{before}{begin}\n{table}\n{END}{after}"
    PAGE.write_text(text, "utf-8")


def _lambda(rows: Sequence[Row]) -> str:
    lines = [
        "| zeros | λ | ‖W‖₀ | float | even share | int8 (95 %) | loss | kB | zstd | sent | time |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    first = rows[0].int8.p50_us
    for row in rows:
        flat = "-" if row.uniform is None else f"{100 * row.uniform.accuracy[0]:.2f}"
        update = "-" if row.update is None else f"{row.update / 1000:.0f}"
        lines.append(
            f"| {row.name} | {row.lambda_:.3g} | {row.norm0:,} "
            f"| {100 * row.float_.accuracy[0]:.2f} | {flat} | {_share(row.int8)} "
            f"| {row.int8.loss:.3f} | {row.int8.size / 1000:.0f} "
            f"| {row.int8.size_zstd / 1000:.0f} | {update} | {row.int8.p50_us / first:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _layers(rows: Sequence[Row]) -> str:
    shown = [row for row in rows if row.layers and row.name in ("50 %", "80 %", "90 %")]
    lines = [
        f"| layer | {' | '.join(f'left at {row.name} zeros' for row in shown)} |",
        f"|---|{'---|' * len(shown)}",
    ]
    for name in shown[0].layers if shown else ():
        left = " | ".join(f"{100 * row.layers[name]:.1f} %" for row in shown)
        lines.append(f"| {name} | {left} |")
    return "\n".join(lines) + "\n"


def _channels(cuts: Sequence[Cut]) -> str:
    lines = [
        "| ratio | trained | parameters | Mmac | float (95 %) | int8 (95 %) | kB | zstd | faster |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    first = cuts[0].float_.p50_us
    for cut in cuts:
        name = "whole" if not cut.ratio else f"{cut.ratio:g}"
        if cut.ratio and cut.round_to == 1:
            name += ", not rounded"
        trained = "-" if not cut.ratio else "yes" if cut.is_trained else "no"
        lines.append(
            f"| {name} | {trained} | {cut.parameters:,} | {cut.multiply_adds / 1e6:.1f} "
            f"| {_share(cut.float_)} | {_share(cut.int8)} "
            f"| {cut.float_.size / 1000:.0f} → {cut.int8.size / 1000:.0f} "
            f"| {cut.float_.size_zstd / 1000:.0f} → {cut.int8.size_zstd / 1000:.0f} "
            f"| {first / cut.float_.p50_us:.1f} · {first / cut.int8.p50_us:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _proof(held: Sequence[Kept]) -> str:
    lines = [
        "| budget | a part | over: chosen | over: proven | lost, 95th | zeros | looks | held |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {100 * one.most:g} | {one.size} | {100 * one.alone:.0f} % | {100 * one.proven:.0f} % "
        f"| {100 * one.worst_alone:.1f} → {100 * one.worst_proven:.1f} "
        f"| {100 * one.zeros_alone:.0f} → {100 * one.zeros_proven:.0f} % "
        f"| {one.looks:.1f} | {100 * one.covered:.1f} % |"
        for one in held
    ]
    return "\n".join(lines) + "\n"


def _share(figures: Figures) -> str:
    value, low, high = (100 * one for one in figures.accuracy)
    return f"{value:.2f} ({low:.1f} to {high:.1f})"
