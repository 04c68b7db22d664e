"""One command a figure: `python -m bench <figure> [options]`. Each figure is a module here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    here = Path(__file__).parent
    figures = sorted(path.stem for path in here.glob("*.py") if not path.stem.startswith("_"))
    if len(argv) < 2 or argv[1] not in figures:
        sys.stderr.write(f"usage: python -m bench {{{','.join(figures)}}} [--help]\n")
        return 2
    result = importlib.import_module(f"bench.{argv[1]}").main(argv[2:])
    return int(result or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
