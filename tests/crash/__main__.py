"""`python -m tests.crash crash-states|kill-matrix`, in full; `… table FILE…`: the page.

A run prints a line for each row, then one JSON line with its sums, and leaves its counts in
`build/crash`. The exit code is 1 where anything was violated, or where a control found nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.crash import matrix, runs, table
from tests.crash.runs import Row
from tests.crash.squares import Square

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "design" / "faults-survived.md"
COUNTS = ROOT / "build" / "crash"
MEMORY = next((path for path in (Path("/dev/shm"),) if path.is_dir()), None)
"""Where the disks lie: one that really syncs would only cost time."""
RUNS = {
    "states": runs.states,
    "kills": runs.kills,
    "real-kills": lambda room: runs.kills(room, is_real=True),
    "faults": runs.faults,
    "matrix": matrix.rows,
    "mutants": runs.mutants,
}


GROUPS = {
    "crash-states": ("states", "mutants"),
    "kill-matrix": ("kills", "real-kills", "faults", "matrix"),
}
"""What is run together, and leaves its counts together."""


def run(names: list[str], out: Path) -> list[Row]:
    """Run enumerations, and leave their counts."""
    logging.disable(logging.CRITICAL)  # every refusal is logged; here they are counted
    ran: list[Row] = []
    found: list[table.Count | Square] = []
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="edgefleet-crash-", dir=MEMORY) as room:
            rows = RUNS[name](Path(room))
        for row in rows:
            found += [row.count, *row.squares]
            print(f"{row.fault}: {row.where}: {row.points} points, {len(row.violations)} bad")
            for word in row.violations[:20] if not row.is_control else ():
                print(f"  {word}")
        ran += rows
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    table.write(out, found)
    return ran


def sums(group: str, rows: list[Row]) -> dict[str, object]:
    """What a group of runs comes to, in one line."""
    honest = [row for row in rows if not row.is_control]
    points = sum(row.points for row in honest)
    bad = sum(len(row.violations) for row in honest)
    if group == "kill-matrix":
        return {"cases": points, "violations": bad}
    controls = [row for row in rows if row.is_control]
    found = sum(bool(row.violations) for row in controls)
    return {"states": points, "bad": bad, "controls": len(controls), "controls_found_bad": found}


def main(argv: list[str]) -> int:
    """See the module."""
    if argv[:1] == ["table"]:
        files = [Path(name) for name in argv[1:]] or sorted(COUNTS.glob("*.json"))
        PAGE.write_text(table.render([row for file in files for row in table.read(file)]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="of that group; all if left out")
    options = parser.parse_args(argv)
    unknown = set(options.runs) - set(GROUPS[options.group])
    if unknown:
        parser.error(f"there is no run {min(unknown)!r} in {options.group}")
    rows = run(options.runs or list(GROUPS[options.group]), COUNTS / f"{options.group}.json")
    print(json.dumps(sums(options.group, rows)))
    counts = [count for row in rows for count in (row.count, *row.squares)]
    return 0 if all(count.is_good for count in counts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
