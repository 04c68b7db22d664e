"""The table of what came in and how far its copies are from it; part of docs/design/sources.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "design" / "sources.md"
BEGIN, END = "<!-- measured: make toolchains -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Tried:
    """One build. `parity` has the largest difference of each copy, relative to outputs over 1;
    `sqnr_db` that of the int8 variants; `refused` what was said instead of a bundle."""

    source: str
    kind: str
    parity: dict[str, float]
    sqnr_db: dict[str, float]
    seconds: float
    refused: str = ""


def table(tried: list[Tried]) -> str:
    """Markdown; a refusal has its words where the figures would stand."""
    lines = [
        "| source | recognised as | ONNX | TFLite | int8 SQNR, dB (ONNX, TFLite) | s |",
        "|---|---|---|---|---|---|",
    ]
    for one in tried:
        if one.refused:
            lines.append(f"| {one.source} | {one.kind} | refused: {one.refused} | | | |")
            continue
        figures = [
            _figure(one.parity.get(f"{kind}-float32", one.parity.get(f"{kind}-int8")))
            for kind in ("onnx", "tflite")
        ]
        noise = ", ".join(
            f"{one.sqnr_db[name]:.1f}" if name in one.sqnr_db else "-"
            for name in ("onnx-int8", "tflite-int8")
        )
        noise = noise if one.sqnr_db else "-"
        lines.append(
            f"| {one.source} | {one.kind} | {' | '.join(figures)} | {noise} | {one.seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def write(tried: list[Tried], versions: str, *, is_part: bool) -> None:
    """Put the table into its page; rows of a part stand for the old ones of the same source."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    made = table(tried).splitlines()
    if is_part:
        sources = {_source(row) for row in made}
        made += [r for r in old.splitlines() if r.startswith("|") and _source(r) not in sources]
    body = "\n".join(made)
    PAGE.write_text(f"{before}{BEGIN}\n{versions}\n\n{body}\n\n{END}{after}", "utf-8")


def _source(row: str) -> str:
    return row.split("|")[1].strip()


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
