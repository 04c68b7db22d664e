"""An HTTP answer as a value, and the few that every page gives."""

from __future__ import annotations

import http
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final

JSON: Final = b"application/json"
OCTETS: Final = b"application/octet-stream"
TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body, and headers beyond length and type."""

    status: int
    body: bytes | memoryview
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def head(self) -> list[tuple[bytes, bytes]]:
        """All headers."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]

    async def send(self, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
        """Say it, as ASGI has it."""
        headers = [*self.head(), date()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    def raw(self) -> bytes:
        """All of it as HTTP/1.1, for a connection that ends with it."""
        lines = [
            b"HTTP/1.1 %d %s" % (self.status, http.HTTPStatus(self.status).phrase.encode()),
            *(name + b": " + value for name, value in self.head()),
            b"connection: close",
        ]
        return b"\r\n".join((*lines, b"", bytes(self.body)))


def date() -> tuple[bytes, bytes]:
    """The header that says when an answer was made (RFC 9110, section 6.6.1)."""
    return b"date", _spell(int(time.time()))


@lru_cache(maxsize=1)
def _spell(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def give(value: object) -> Answer:
    """200 with a JSON value."""
    return Answer(200, json.dumps(value, ensure_ascii=False).encode())


def refuse(status: int, message: str, *headers: tuple[bytes, bytes]) -> Answer:
    """An error in the shape that all protocols share."""
    text = json.dumps({"error": message}, ensure_ascii=False)
    return Answer(status, text.encode("utf-8", "replace"), headers=headers)


def busy(message: str, *headers: tuple[bytes, bytes]) -> Answer:
    """503: the same request may go through in a second."""
    return refuse(503, message, (b"retry-after", b"1"), *headers)
