"""The command `fleet`: runs the command line, and turns what went wrong into words."""

from __future__ import annotations

import errno
import sys
from typing import Final

from edgefleet_contract.errors import EdgefleetError

_EXTRA: Final = frozenset(
    {
        *("alembic", "fastapi", "gmqtt", "jinja2", "requests", "rich", "sqlalchemy", "starlette"),
        *("typer", "uvicorn", "pydantic", "yaml"),
    }
)

_OF_THE_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def main() -> int:
    """Run `fleet`; its exit code."""
    try:
        from edgefleet_fleet import cli

        return cli.run()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _EXTRA:
            raise
        return _complain(f"{name} is not installed", "pip install 'edgefleet[fleet]'", 1)
    except EdgefleetError as error:
        from edgefleet_fleet.errors import exit_code

        return _complain(error.message, error.hint, exit_code(error))
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        hint = "make room on the disk, or let this user write there"
        return _complain(f"{error.filename or 'a file'}: {error.strerror}", hint, 1)


def _complain(message: str, hint: str, code: int) -> int:
    print(f"fleet: error: {message}", file=sys.stderr)  # noqa: T201 - this is the command line
    if hint:
        print(f"fleet: hint: {hint}", file=sys.stderr)  # noqa: T201 - the same
    return code


if __name__ == "__main__":
    sys.exit(main())
