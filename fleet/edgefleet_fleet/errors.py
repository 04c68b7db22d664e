"""What the control room raises beyond the contract's tree, and the exit code of each kind.

OperatorError
├── NotFound      a name that the fleet does not know            (HTTP 404)
├── Conflict      it contradicts what the fleet already has      (HTTP 409)
└── Denied        the caller may not: its role, a spent claim    (HTTP 403)
    └── Unknown   nobody knows who asks: no token, a wrong one   (HTTP 401)
TransientError
└── TooMany       too many wrong tokens or requests: wait        (HTTP 429)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgefleet_contract.errors import EdgefleetError, OperatorError, PeerError, TransientError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
EXIT_UNREACHABLE: Final = 4
EXIT_WAITS: Final = 5
EXIT_INTERRUPTED: Final = 130
EXIT_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "done",
        EXIT_FAILED: "failed, a watched rollout stopped, or the doctor found a fault",
        EXIT_USAGE: "wrong usage",
        EXIT_REFUSED: "refused: a signature, a rule, a right that is missing",
        EXIT_UNREACHABLE: "out of reach, or to be tried again later",
        EXIT_WAITS: "a watched rollout waits for a person",
        EXIT_INTERRUPTED: "interrupted",
    }
)


class NotFound(OperatorError):
    """The fleet has nothing of this name."""


class Conflict(OperatorError):
    """It contradicts what the fleet already holds."""


class Denied(OperatorError):
    """The caller may not do this."""


class Unknown(Denied):
    """Nobody knows who asks."""


class TooMany(TransientError):
    """Too much that was wrong came from there; nothing is looked at for `seconds`."""

    def __init__(self, seconds: int, *, what: str = "wrong tokens") -> None:
        hint = f"wait {seconds} s, then try again"
        super().__init__(f"too many {what}", hint=hint, retry_after_s=seconds)


def exit_code(error: EdgefleetError) -> int:
    """The exit code of the command line for an error."""
    if isinstance(error, PeerError | Denied):
        return EXIT_REFUSED
    if isinstance(error, TransientError):
        return EXIT_UNREACHABLE
    return EXIT_FAILED


def exit_codes() -> str:
    """The exit codes of the command line in one sentence."""
    return "Exit codes: " + "; ".join(f"{code} {words}" for code, words in EXIT_CODES.items()) + "."
