"""The table of faults that a device survives, printed from the counts of runs, never by hand.

A run leaves a JSON file: a list of rows with `fault`, `where`, `points`, `violations` (a number)
and `is_control`; or squares of the kill matrix (`squares.py`). Files of several runs make one page;
`violations` of a control are the proof that its check can fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.crash import squares
from tests.crash.squares import Square

HEAD = """\
# Faults survived

Printed by `python -m tests.crash table`, from the counts of the last runs of `make crash-states`,
`make kill-matrix` and `make powercut`. A point is a place where the fault struck, with the device's
next start after it; a violation is any of: no verified model can be served, something that was
acknowledged is lost, a file in the store is not what its name says, a state that was never written,
a model quarantined without guilt, the agent dies, it neither converges nor says why, something is
left over.

| fault | where | points | violations |
|---|---|---|---|
"""
CONTROLS = """
The same checks on code that is wrong on purpose; a check that finds nothing here is worth nothing.

| what was left out | where | points | violations |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Count:
    """A line of the table."""

    fault: str
    where: str
    points: int
    violations: int
    is_control: bool = False

    @property
    def is_good(self) -> bool:
        """No violations; or, for a control, some."""
        return self.points > 0 and (self.violations > 0) is self.is_control


def write(path: Path, rows: Iterable[Count | Square]) -> None:
    """Leave the counts of a run for the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read(path: Path) -> list[Count | Square]:
    """The counts that a run left."""
    return [
        Square(**row) if "state" in row else Count(**row) for row in json.loads(path.read_text())
    ]


def render(found: Sequence[Count | Square]) -> str:
    """The page."""
    rows = [row for row in found if isinstance(row, Count)]
    matrix = squares.render([row for row in found if isinstance(row, Square)])
    tried = [row for row in rows if not row.is_control]
    points, violations = sum(r.points for r in tried), sum(r.violations for r in tried)
    total = f"| **all** | | **{points}** | **{violations}** |\n"
    controls = "".join(_line(row) for row in rows if row.is_control)
    return HEAD + "".join(_line(row) for row in tried) + total + CONTROLS + controls + matrix


def _line(row: Count) -> str:
    return f"| {row.fault} | {row.where} | {row.points} | {row.violations} |\n"
