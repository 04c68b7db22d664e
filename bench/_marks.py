"""Texts that a figure writes into a page of the docs, behind its mark and up to the next end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

END: Final = "<!-- end -->"


def put(page: Path, mark: str, text: str) -> None:
    """Write a text between its mark and the next end; what stood there is gone."""
    before, found, rest = page.read_text("utf-8").partition(f"{mark}\n")
    assert found, f"{page} has no {mark}"
    page.write_text(f"{before}{mark}\n{text}\n{END}{rest.partition(END)[2]}", "utf-8")
