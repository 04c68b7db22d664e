"""Bearer tokens of the network's clients: made, kept as hashes, recognised. Pure but for `secrets`.

A token is 256 random bits behind a prefix that scanners of repositories can find. A plain SHA-256
is enough for what nobody can guess. Law: `parse(render(table)) == table`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.errors import Malformed, OperatorError

SCHEMA: Final = "edgefleet.tokens/1"
MAX_TOKENS: Final = 256
_PREFIX: Final = "edgetok_"
_LONGEST: Final = 128
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token. `models` are the slots that it opens, none: all. One that `measures`
    opens none: it is for measuring models of publishers on this board.

    `created` and `expires` are Unix times, s; 0: it does not end.
    """

    name: str
    sha256: str
    created: int
    expires: int = 0
    models: tuple[str, ...] = ()
    measures: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not _SHA256.fullmatch(self.sha256):
            raise Malformed("neither the name nor the hash of a token")

    def is_expired(self, now: float) -> bool:
        """Whether its time is over."""
        return bool(self.expires) and now >= self.expires


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens of one device; no two have one name."""

    tokens: tuple[Token, ...] = ()
    schema: str = field(default=SCHEMA)

    def add(self, token: Token) -> TokenTable:
        """With one more.

        Raises:
            OperatorError: the name is taken, or there are too many.
        """
        if any(held.name == token.name for held in self.tokens):
            raise OperatorError(
                f"there is a token {token.name!r} already",
                hint="choose another name, or revoke it: edge-agent token revoke NAME",
            )
        if len(self.tokens) >= MAX_TOKENS:
            raise OperatorError(f"there are {MAX_TOKENS} tokens already", hint="revoke some")
        return TokenTable((*self.tokens, token))

    def revoke(self, name: str) -> TokenTable:
        """Without one.

        Raises:
            OperatorError: there is none of this name.
        """
        rest = tuple(held for held in self.tokens if held.name != name)
        if len(rest) == len(self.tokens):
            raise OperatorError(
                f"there is no token {name[:63]!r}", hint="edge-agent token list shows them"
            )
        return TokenTable(rest)

    def find(self, secret: bytes) -> Token | None:
        """Whose secret this is. All hashes are compared, each in constant time."""
        if len(secret) > _LONGEST:
            return None
        digest = hashlib.sha256(secret).hexdigest()
        found = None
        for held in self.tokens:
            if hmac.compare_digest(held.sha256, digest):
                found = held
        return found

    def now(self, clock: float) -> float:
        """The time by a clock that may stand at 1970: at least that of the newest token."""
        return max([clock, *(held.created for held in self.tokens)])


def make_token(
    name: str,
    *,
    now: int,
    lasts_s: int = 0,
    models: tuple[str, ...] = (),
    measures: bool = False,
) -> tuple[Token, str]:
    """A new token, and its secret, which is said once and kept nowhere.

    Raises:
        OperatorError: the name is none, or it is to open models and to measure.
    """
    if models and measures:
        raise OperatorError("a token measures, or opens models", hint="make two of them")
    if not _NAME.fullmatch(name):
        raise OperatorError(
            f"{name[:63]!r} is no name for a token", hint="lower-case letters, digits, . _ -"
        )
    secret = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Token(name, digest, now, now + lasts_s if lasts_s else 0, models, measures), secret


def parse_span(text: str) -> int:
    """Seconds of a word such as `90d`, `12h` or `30m`.

    Raises:
        OperatorError: it is none.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise OperatorError(f"{text[:20]!r} is no span of time", hint="for example 90d, 12h, 30m")
    return int(found[1]) * _UNITS[found[2]]


def render(table: TokenTable) -> bytes:
    """The file's bytes."""
    return canonical.render(codec.encode(table)) + b"\n"


def parse(raw: bytes, *, what: str) -> TokenTable:
    """What a file says.

    Raises:
        Malformed: it is no such file.
    """
    table = codec.decode(TokenTable, canonical.parse_message(raw, what=what), what=what)
    names = [held.name for held in table.tokens]
    if table.schema != SCHEMA or len(set(names)) < len(names):
        raise Malformed(f"{what}: not a table of {SCHEMA}")
    return table
