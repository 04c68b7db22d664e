"""The program `edge-convert`: runs the command line, or says which extra is missing."""

from __future__ import annotations

import signal
import sys

_HINT = "pip install 'edgefleet[converter]'"


def main() -> int:
    """Run; the exit code. SIGTERM ends a command as Ctrl-C does: tidily."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from edgefleet_converter.cli import run

        return run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("edgefleet"):
            raise
        sys.stderr.write(f"edge-convert: error: {error.name} is not installed\n")
        sys.stderr.write(f"edge-convert: hint: {_HINT}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
