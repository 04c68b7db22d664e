"""The threat model names tests that exist, a mechanism in each row, and a row for each letter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design" / "threat-model.md"
STRIDE = (
    "Spoofing",
    "Tampering",
    "Repudiation",
    "Information disclosure",
    "Denial of service",
    "Elevation of privilege",
)
CITED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> dict[str, list[list[str]]]:
    """The cells of every row, by the heading above it."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| threat "):
            found.setdefault(heading, []).append([cell.strip() for cell in line.split("|")[1:-1]])
    return found


def names_in(path: Path) -> set[str]:
    """The tests of a file: functions, and what is called like a test class."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if name.startswith(("test_", "Test"))}


def test_every_kind_of_threat_has_rows() -> None:
    assert list(rows()) == list(STRIDE)
    assert all(len(found) >= 3 for found in rows().values())


def test_every_row_names_a_mechanism_and_a_test_that_exists() -> None:
    for heading, found in rows().items():
        for row in found:
            assert len(row) == 3, row
            threat, mechanism, test = row
            assert mechanism, threat
            cited = CITED.fullmatch(test)
            assert cited is not None, f"{heading}: {threat}: {test} is not `tests/….py::test_…`"
            path = ROOT / cited[1]
            assert path.is_file(), f"{heading}: {threat}: there is no {cited[1]}"
            assert cited[2] in names_in(path), f"{heading}: {threat}: {cited[1]} has no {cited[2]}"


def test_no_threat_stands_twice() -> None:
    threats = [row[0] for found in rows().values() for row in found]
    assert len(set(threats)) == len(threats)


def test_what_is_not_covered_is_said() -> None:
    _, _, rest = PAGE.read_text().partition("## Not covered yet\n")
    assert len(re.findall(r"^- ", rest, re.MULTILINE)) >= 3
