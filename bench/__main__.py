"""One command a figure: `python -m bench <figure> [options]`. Each figure is a module here."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    here = Path(__file__).parent
    figures = sorted(path for path in here.glob("*.py") if not path.stem.startswith("_"))
    if len(argv) < 2 or argv[1] not in {path.stem for path in figures}:
        told = "".join(f"  {path.stem:12}{_first_line(path)}\n" for path in figures)
        is_asked = argv[1:2] in (["--help"], ["-h"])
        stream = sys.stdout if is_asked else sys.stderr
        stream.write(f"usage: python -m bench FIGURE [--help]\n\n{told}")
        return 0 if is_asked else 2
    result = importlib.import_module(f"bench.{argv[1]}").main(argv[2:])
    return int(result or 0)


def _first_line(path: Path) -> str:
    """What a figure is, without importing it: some need what not everybody has."""
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return said.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
