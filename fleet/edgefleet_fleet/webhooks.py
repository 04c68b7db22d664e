"""Webhooks: what an address of the user's choice is told, how it is signed, when it comes again.

Pure. A webhook follows the audit trail, row by row, in its order: it has a cursor, and the row
behind the cursor is sent until it is taken. So nothing is lost and nothing overtakes; what was sent
and not acknowledged comes again, with the same id. After three days without an answer the webhook
stops, where it is; `resume` goes on from there.

The headers are those of Standard Webhooks (standardwebhooks.com, version 1): `webhook-id`,
`webhook-timestamp` in seconds since 1970, `webhook-signature`, which is `v1,` and the base64 of
HMAC-SHA256 over `id.timestamp.body`, by the bytes behind `whsec_`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.records import AuditRow

PREFIX: Final = "whsec_"  # of a secret
_WAITS_S: Final = (5, 30, 120, 600, 1800, 3600)
STOP_AFTER_S: Final = 3 * 24 * 3600
LEASE_S: Final = 60
_MAX_ERROR: Final = 200


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address, what it is told, and how far it is.

    `events` are patterns over the words of the audit trail (`rollout.*`). `cursor` is the number
    of the last row that was taken. Times are seconds since 1970; `failing_since` is None while it
    answers, `stopped` is whether it waits for a person.
    """

    name: str
    url: str
    secret: str
    events: tuple[str, ...]
    created_at: int
    created_by: str
    cursor: int
    attempts: int = 0
    next_at: int = 0
    failing_since: int | None = None
    last_error: str = ""
    stopped: bool = False

    def wants(self, what: str) -> bool:
        """Whether it is told of this."""
        return any(fnmatchcase(what, pattern) for pattern in self.events)


def check(url: str, events: tuple[str, ...]) -> None:
    """Hold an address and patterns against what they may be.

    Raises:
        Malformed: another scheme, no host, a password in the address, or no pattern.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise Malformed(
            f"webhook address {url[:80]!r}: https://host/path, without a password in it"
        )
    if not events or not all(event and len(event) <= 64 for event in events):
        raise Malformed("a webhook has one pattern or more, such as 'rollout.*'")


def body_of(fleet: str, number: int, row: AuditRow) -> bytes:
    """What is sent of row `number`: `type`, `timestamp` and `data`, JSON."""
    data = {
        "fleet": fleet,
        "number": number,
        "who": row.who,
        "subject": row.subject,
        "detail": row.detail,
    }
    value = {"type": row.what, "timestamp": row.at, "data": data}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def headers_of(
    webhook: Webhook, fleet: str, number: int, body: bytes, *, at: int
) -> dict[str, str]:
    """The headers of one attempt at `at`. The id is the same at every attempt."""
    name = f"{fleet}.{webhook.name}.{number}"
    key = base64.b64decode(webhook.secret.removeprefix(PREFIX))
    signed = f"{name}.{at}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "user-agent": "edgefleet",
        "webhook-id": name,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{signature}",
    }


def taken(webhook: Webhook, number: int) -> Webhook:
    """It took row `number`, or does not want to hear of it."""
    return replace(webhook, cursor=number, attempts=0, next_at=0, failing_since=None, last_error="")


def failed(webhook: Webhook, why: str, *, now: int, retry_after_s: int = 0) -> Webhook:
    """It did not take a row: when to try again, or that it stops."""
    since = webhook.failing_since if webhook.failing_since is not None else now
    wait = max(_WAITS_S[min(webhook.attempts, len(_WAITS_S) - 1)], min(retry_after_s, 3600))
    return replace(
        webhook,
        attempts=webhook.attempts + 1,
        next_at=now + wait,
        failing_since=since,
        last_error=why[:_MAX_ERROR],
        stopped=now - since >= STOP_AFTER_S,
    )


def resumed(webhook: Webhook) -> Webhook:
    """A person wants it to go on."""
    return replace(webhook, attempts=0, next_at=0, failing_since=None, stopped=False)
