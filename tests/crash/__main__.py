"""`python -m tests.crash`: every crash, in full; `python -m tests.crash table FILE…`: the page.

A run prints a line for each row and leaves its counts in `--out`. The exit code is 1 where anything
was violated, or where a control found nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.crash import matrix, runs, table
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


def run(names: list[str], out: Path) -> int:
    """Run enumerations, and leave their counts."""
    logging.disable(logging.CRITICAL)  # every refusal is logged; here they are counted
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
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    table.write(out, found)
    return 0 if all(row.is_good for row in found) else 1


def main(argv: list[str]) -> int:
    """See the module."""
    if argv[:1] == ["table"]:
        files = [Path(name) for name in argv[1:]] or sorted(COUNTS.glob("*.json"))
        PAGE.write_text(table.render([row for file in files for row in table.read(file)]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of: {', '.join(RUNS)}")
    parser.add_argument("--out", type=Path, default=COUNTS / "1-crash.json")
    options = parser.parse_args(argv)
    unknown = set(options.runs) - set(RUNS)
    if unknown:
        parser.error(f"there is no run {min(unknown)!r}")
    return run(options.runs or list(RUNS), options.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
