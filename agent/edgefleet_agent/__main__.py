"""`edge-agent`, and `python -m edgefleet_agent`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; a missing extra explains itself."""
    try:
        from edgefleet_agent.cli import main as run
    except ModuleNotFoundError as error:
        print(f"edge-agent: error: {error.name} is not installed", file=sys.stderr)  # noqa: T201 - this is the terminal
        print("edge-agent: hint: pip install 'edgefleet[agent]'", file=sys.stderr)  # noqa: T201 - the same
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
