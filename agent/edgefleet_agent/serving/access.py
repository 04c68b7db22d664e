"""Who may ask what on the network: an ASGI application before the one that answers.

A request brings a credential, or it is refused before its path is looked at: 401, or 429 where an
address was wrong too often. What it may see then goes on in the scope, as a `Pass`; on a socket
without this gate there is none, and everything may be asked. Spec: [api-1.5] to [api-1.9].
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from edgefleet_agent.serving.answer import Answer, refuse
from edgefleet_agent.serving.lan import LanConfig
from edgefleet_agent.serving.router import Entry
from edgefleet_agent.serving.token_file import TokenFile
from edgefleet_contract.throttle import Throttle

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN: Final = frozenset({"/healthz", "/v2/health/live"})
"""What is answered to anybody: that the server runs."""
ADMITTED: Final = "edgefleet.admitted"
PEER: Final = "peer"
_BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9._~+/=-]+) *", re.IGNORECASE)
_MOST_NAMES: Final = 512


@dataclass(frozen=True, slots=True)
class Pass:
    """Who asks, and the slots that they may ask; none: all. Who `measures` does nothing else."""

    name: str
    models: tuple[str, ...] = ()
    measures: bool = False

    @property
    def sees_all(self) -> bool:
        """Whether it may see who else asks."""
        return not self.models and not self.measures

    def denies(self, model: str | None) -> Answer | None:
        """What is said instead of an answer about a model, served or not; None if it may be."""
        if self.measures:
            return refuse(403, f"{self.name} may measure and nothing else")
        if model is None or not self.models or model in self.models:
            return None
        return refuse(403, f"{self.name} is not for model {model[:200]!r}")

    def visible(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """What lists and counts may show."""
        if self.measures:
            return ()
        if not self.models:
            return entries
        return tuple(entry for entry in entries if entry.route.slot in self.models)


@dataclass(slots=True)
class Tally:
    """What the network asked: answers by who asked and status, refusals by reason."""

    answered: dict[tuple[str, int], int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def answer(self, name: str, status: int) -> None:
        """Count an answer; names beyond so many are counted as one."""
        key = (name, status)
        if key not in self.answered and len(self.answered) >= _MOST_NAMES:
            key = ("others", status)
        self.answered[key] = self.answered.get(key, 0) + 1

    def refuse(self, why: str) -> None:
        """Count a refusal."""
        self.refused[why] = self.refused.get(why, 0) + 1


@dataclass(frozen=True, slots=True)
class _Refusal:
    why: str
    answer: Answer


class Gate:
    """Lets requests through to `app` that may come in."""

    def __init__(
        self,
        app: Asgi,
        lan: LanConfig,
        tally: Tally,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app, self._lan, self._tally, self._clock = app, lan, tally, clock
        self._tokens = TokenFile(lan.tokens_file)
        self._throttle = Throttle()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        found = self._judge(scope)
        if isinstance(found, _Refusal):
            self._tally.refuse(found.why)
            await found.answer.send(send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._tally.answer(found.name, message["status"])
            await send(message)

        await self._app({**scope, ADMITTED: found}, receive, counted)

    def _judge(self, scope: Message) -> Pass | _Refusal:
        if scope["path"] in OPEN:
            return Pass("anybody")
        peer = scope["state"].get(PEER, "")
        if peer and (not self._lan.clients or peer in self._lan.clients):
            return Pass(f"certificate {peer}")
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if self._lan.tokens and given:
            return self._by_token(given, (scope.get("client") or ("", 0))[0])
        if peer:
            text = f"the certificate of {peer[:200]!r} is not on the list"
            return _Refusal("certificate", refuse(403, text))
        if self._lan.tokens:
            return _Refusal("nothing", _unknown("bring a token: Authorization: Bearer …"))
        return _Refusal("nothing", refuse(403, "bring a certificate"))

    def _by_token(self, given: list[bytes], address: str) -> Pass | _Refusal:
        now = time.monotonic()
        wait = self._throttle.wait(address, now=now)
        if wait:
            text = f"too many wrong tokens came from {address}"
            return _Refusal("throttled", refuse(429, text, (b"retry-after", b"%d" % wait)))
        secret = parse_bearer(given)
        table = self._tokens.table
        token = table.find(secret) if secret is not None else None
        if token is None:
            self._throttle.failed(address, now=now)
            return _Refusal("wrong", _unknown("the token is not known here", "invalid_token"))
        self._throttle.succeeded(address, now=now)
        if token.is_expired(table.now(self._clock())):
            text = f"the token {token.name!r} has ended"
            return _Refusal("expired", _unknown(text, "invalid_token"))
        return Pass(f"token {token.name}", token.models, measures=token.measures)


def parse_bearer(values: Iterable[bytes]) -> bytes | None:
    """The secret in `Authorization` headers (RFC 6750); None unless exactly one holds one."""
    held = list(values)
    found = _BEARER.fullmatch(held[0]) if len(held) == 1 and len(held[0]) <= 256 else None
    return found[1] if found else None


def _unknown(message: str, error: str = "") -> Answer:
    challenge = b'Bearer realm="edgefleet"' + (b', error="%s"' % error.encode() if error else b"")
    return refuse(401, message, (b"www-authenticate", challenge))
