"""An HTTP answer as a value, and the few that every page gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

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


def give(value: object) -> Answer:
    """200 with a JSON value."""
    return Answer(200, json.dumps(value, ensure_ascii=False).encode())


def refuse(status: int, message: str, *headers: tuple[bytes, bytes]) -> Answer:
    """An error in the shape that all protocols share."""
    text = json.dumps({"error": message}, ensure_ascii=False)
    return Answer(status, text.encode("utf-8", "replace"), headers=headers)


def busy(message: str) -> Answer:
    """503: the same request may go through in a second."""
    return refuse(503, message, (b"retry-after", b"1"))
