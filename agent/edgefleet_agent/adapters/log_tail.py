"""The newest lines of the agent's own log, in memory, with secrets masked as they come in.

They are those of this run of the agent: the journal of systemd cannot be read from inside the
unit. Inputs, outputs and keys are never logged; what is masked here is for what slips through, for
example in the words of a foreign error.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from typing import Final

from edgefleet_contract.commands import MAX_LINES

MASK: Final = "[masked]"
_MAX_CHARS: Final = 500
_SECRETS: Final = (
    re.compile(r"\befc1\.[^\s'\"]+"),  # a claim
    re.compile(r"\bedgetok_[A-Za-z0-9_-]+"),  # a token of the prediction port
    re.compile(r"(?i)(?<=\bbearer )\S+"),
    re.compile(r"(?i)(?<=://)[^\s/@]+(?=@)"),  # user and password of a URL
    re.compile(
        r"(?i)\b(?:token|secret|password|passwd|passphrase|authorization|api[_-]?key|private.key)"
        r"['\"]?\s*[=:]\s*\S+"
    ),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL),
)


def masked(text: str) -> str:
    """A text without what looks like a secret.

    >>> masked("GET http://me:pw@cache/x token=abc")
    'GET http://[masked]@cache/x [masked]'
    """
    for secret in _SECRETS:
        text = secret.sub(MASK, text)
    return text


class LogTail(logging.Handler):
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=MAX_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the lines of a record."""
        try:
            text = masked(f"{record.levelname} {record.name}: {record.getMessage()}")
            if record.exc_info and record.exc_info[1] is not None:
                text += masked(f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})")
        except Exception:  # noqa: BLE001 - a line of the log is never worth an error
            self.handleError(record)
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        for line in text.replace("\0", "").splitlines():
            self._lines.append(f"{stamp} {line[:_MAX_CHARS]}")

    def newest(self, count: int) -> list[str]:
        """So many lines, oldest first."""
        return list(self._lines)[-count:]
