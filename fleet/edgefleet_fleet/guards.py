"""What must hold when a change is made: that nobody changed it before, that it is the first time.

Both are looked at inside the transaction of the change (`work.py`), so nothing comes between: two
clients that saw the same state cannot both change it, and a request that is sent twice, even at
once, even across `kill -9`, happens once. What a key stood for is kept with what was made, in one
commit; the answer follows. A key of whose answer nothing is known says so, and is never tried a
second time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi.encoders import jsonable_encoder
from starlette.responses import JSONResponse

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.adapters.sql.store import Store, Transaction
from edgefleet_fleet.errors import Changed, Conflict, Mismatch
from edgefleet_fleet.records import MadeRow

KEPT_S: Final = 24 * 3600
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_TAG: Final = re.compile(r'\s*(W/)?"([\x21\x23-\x7e]*)"\s*')


def etag_of(body: bytes) -> str:
    """The strong entity tag (RFC 9110, section 8.8.3) of an answer's bytes."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def etag_of_view(view: Any) -> str:
    """The entity tag that `GET` gives with this view."""
    return etag_of(bytes(JSONResponse(jsonable_encoder(view)).body))


def names(header: str, etag: str, *, weakly: bool) -> bool:
    """Whether a list of entity tags names one; `*` names any. Weak tags count `weakly` only.

    Raises:
        Malformed: it is no such list.
    """
    if header.strip() == "*":
        return True
    found = False
    for part in header.split(","):
        tag = _TAG.fullmatch(part)
        if tag is None:
            raise Malformed("an entity tag stands in quotes, as ETag gave it")
        found = found or (f'"{tag[2]}"' == etag and (weakly or not tag[1]))
    return found


@dataclass(slots=True)
class Unchanged:
    """`If-Match`: the resource is what the client saw."""

    header: str
    view: Callable[[Transaction], Any]

    def check(self, tx: Transaction) -> None:
        """Hold it against what is there.

        Raises:
            Changed: it is another now.
            NotFound: there is none.
        """
        if not names(self.header, etag_of_view(self.view(tx)), weakly=False):
            raise Changed(
                "it was changed since it was read (If-Match)", hint="read it again, then decide"
            )


@dataclass(slots=True)
class Once:
    """`Idempotency-Key`: a request that happens once, however often it is sent."""

    who: str
    key: str
    asked_sha256: str
    is_taken: bool = False

    def found(self, store: Store, now: int) -> MadeRow | None:
        """What this request made before.

        Raises:
            Mismatch: the key stood for another request.
            Conflict: it was made, and its answer is not kept.
        """
        with store.begin() as tx:
            row = tx.made.get(self.who, self.key, since=now - KEPT_S)
        if row is None:
            return None
        if row.asked_sha256 != self.asked_sha256:
            raise Mismatch(
                f"idempotency key {self.key[:80]!r} stood for another request",
                hint="take a new key for each thing that you make",
            )
        if row.body is None:
            raise Conflict(
                f"this was asked before under idempotency key {self.key[:80]!r}, and its answer is"
                " not kept",
                hint="look at what is there; a secret is said once: end it, and make another",
            )
        return row

    def take(self, tx: Transaction, now: int) -> None:
        """Keep the key with the change.

        Raises:
            Conflict: another request with this key was faster.
        """
        row = MadeRow(self.who, self.key, self.asked_sha256, now)
        if not tx.made.take(row, since=now - KEPT_S):
            raise Conflict(f"a request with idempotency key {self.key[:80]!r} is on its way")
        self.is_taken = True

    def answered(self, store: Store, status: int, body: bytes | None) -> None:
        """Keep the answer (None: it has a secret), or after a refusal forget the key."""
        if not self.is_taken:
            return
        with store.begin() as tx:
            if 400 <= status < 500:
                tx.made.drop(self.who, self.key)
            elif status < 300 and body is not None:
                tx.made.answer(self.who, self.key, status, body)


class Replayed(Exception):
    """A request was answered before, and its key says that it is the same one."""

    def __init__(self, row: MadeRow) -> None:
        super().__init__(row.key)
        self.row = row


@dataclass(slots=True)
class Guard:
    """Both, at the first piece of work of a request."""

    unchanged: Unchanged | None = None
    once: Once | None = None
    is_passed: bool = False

    def __call__(self, tx: Transaction, now: int) -> None:
        """Let the change be made, or raise what `Unchanged` and `Once` do."""
        if self.is_passed:
            return
        if self.unchanged is not None:
            self.unchanged.check(tx)
        if self.once is not None:
            self.once.take(tx, now)
        self.is_passed = True


def parse_key(header: str) -> str:
    """The key of an `Idempotency-Key` header, which may stand in quotes as the draft has it.

    Raises:
        Malformed: none, or more than 255 characters, or others than visible ASCII.
    """
    text = header.strip()
    if len(text) > 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not _KEY.fullmatch(text):
        raise Malformed("Idempotency-Key: 1 to 255 visible ASCII characters")
    return text


def fingerprint(method: str, path: str, query: str, body: bytes) -> str:
    """The SHA-256 of a request: of its JSON, not of how that is laid out."""
    with contextlib.suppress(ValueError, RecursionError):
        body = json.dumps(json.loads(body), sort_keys=True).encode()
    return hashlib.sha256(f"{method} {path}?{query}\n".encode() + body).hexdigest()
