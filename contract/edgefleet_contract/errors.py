"""Every failure that edgefleet raises on purpose, drawn by who can act on it.

    EdgefleetError
    ├── OperatorError      a person changes a file, a flag or a key, and tries again
    ├── PeerError          bytes from somebody else are not acceptable; carries a Reason
    │   ├── Malformed      they are not what the specification describes
    │   └── Unverified     they are well formed, but nobody we trust vouches for them
    ├── DeviceError        this board cannot do it (disk, memory, runtime); carries a Reason
    └── TransientError     the same call may go through later (network, broker, a busy peer)

A message says what was being done and what was found; a hint says what to do.
"""

from __future__ import annotations

from edgefleet_contract.reasons import Reason


class EdgefleetError(Exception):
    """The root of the tree: a message for people, and a hint where there is one."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class OperatorError(EdgefleetError):
    """Someone at a keyboard can mend this."""


class PeerError(EdgefleetError):
    """What a peer sent is refused, for a reason that crosses the wire and is counted."""

    def __init__(self, message: str, *, reason: Reason, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class Malformed(PeerError):
    """The bytes are not what the specification describes."""

    def __init__(self, message: str, *, reason: Reason = Reason.MALFORMED, hint: str = "") -> None:
        super().__init__(message, reason=reason, hint=hint)


class Unverified(PeerError):
    """The bytes are well formed, but not vouched for by anyone who may."""

    def __init__(
        self, message: str, *, reason: Reason = Reason.BAD_SIGNATURE, hint: str = ""
    ) -> None:
        super().__init__(message, reason=reason, hint=hint)


class DeviceError(EdgefleetError):
    """This board cannot do what was asked."""

    def __init__(self, message: str, *, reason: Reason, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class TransientError(EdgefleetError):
    """Try again later; nothing is wrong that waiting may not cure.

    `retry_after_s` is how long to wait, where the peer said so.
    """

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
