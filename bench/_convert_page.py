"""The measured part of docs/design/search.md: of each model the rows that were measured last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from bench._anchors import ANCHORS, versions
from bench._convert_table import Row, page, summary
from bench._kept import Kept
from bench._marks import put

PAGE = Path(__file__).parents[1] / "docs" / "design" / "search.md"
MARK = "<!-- measured: python -m bench convert --write -->"


def keep_rows(kept: Kept, model: str, code: str, rows: Sequence[Row]) -> None:
    """As the last of a model; `code` is the digest of the converter that made ours."""
    kept.say(f"latest-{model}", {"code": code, "rows": [asdict(row) for row in rows]})


def write_page(kept: Kept, models: Sequence[str], code: str) -> None:
    """Put the rows of all models into the page; those by another converter than `code` are named.

    What nobody ever measured is named, too.
    """
    rows: list[Row] = []
    earlier, missing = [], []
    for model in models:
        said = kept.said(f"latest-{model}")
        if said is None:
            missing.append(model)
            continue
        rows += [Row(**row) for row in said["rows"]]
        if said["code"] != code:
            earlier.append(model)
    words = ", ".join(_version(name) for name in ANCHORS)
    words += f"; ours with onnxruntime {metadata.version('onnxruntime')}."
    for told, names in (("An earlier converter made ours of", earlier), ("Not measured", missing)):
        words += f"\n\n{told}: {', '.join(names)}." if names else ""
    put(PAGE, MARK, f"\n{page(rows, summary(rows), words)}\n")


def _version(name: str) -> str:
    """The tool's package and its version."""
    package = ANCHORS[name].packages[0]
    for line in versions(name).read_text().replace("_", "-").splitlines():
        if line.startswith(f"{package}=="):
            return line.replace("==", " ")
    return package
