"""Predictions that are asked for over the broker, as values: what came, and what goes back.

Without I/O. The body is that of the Open Inference Protocol and is passed on unread; what is judged
here is where it came from, how large it is, and how many there are. [wire-10]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgefleet_contract.topics import is_response_topic, response_topic

JSON_SIZE: Final = "inference-header-content-length"
PASSED_ON: Final = (JSON_SIZE, "edgefleet-model-version", "retry-after")
"""Headers of an answer that its user properties have, too."""
_MOST_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived: `properties` are the user properties, by name in lower case."""

    slot: str
    body: bytes
    response_topic: str = ""
    correlation: bytes | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back, and where: one of the topics of [wire-10.3]."""

    topic: str
    body: bytes
    correlation: bytes | None
    properties: Mapping[str, str]
    content_type: str = "application/json"


def answer_topic(fleet: str, device: str, request: Request) -> str | None:
    """Where a request is answered; None where that is no place for an answer."""
    if not request.response_topic:
        return response_topic(fleet, device, request.slot)
    if is_response_topic(fleet, device, request.slot, request.response_topic):
        return request.response_topic
    return None


def headers_of(request: Request) -> dict[str, str] | None:
    """The HTTP headers of a request; None where what it says of its JSON is no number."""
    size = request.properties.get(JSON_SIZE)
    if size is None:
        return {"Content-Type": "application/json"}
    if not (size.isascii() and size.isdigit() and len(size) <= _MOST_DIGITS):
        return None
    return {"Content-Type": "application/octet-stream", JSON_SIZE: size}


def answered(
    request: Request, topic: str, status: int, headers: Mapping[str, str], body: bytes
) -> Response:
    """The answer that HTTP would have given; the names of headers are in lower case."""
    passed = {name: headers[name] for name in PASSED_ON if name in headers}
    kind = headers.get("content-type", "application/json")
    return Response(topic, body, request.correlation, {"status": str(status), **passed}, kind)


def refused(
    request: Request, topic: str, status: int, why: str, *, retry_after_s: int = 0
) -> Response:
    """An answer that the agent itself gives. [api-4.1]"""
    headers = {"retry-after": str(retry_after_s)} if retry_after_s else {}
    return answered(request, topic, status, headers, json.dumps({"error": why}).encode())


@dataclass(slots=True)
class Rate:
    """At most `per_s` a second, and as many at once. `allows` takes the time, s."""

    per_s: float
    _left: float = 0.0
    _at: float = float("-inf")

    def allows(self, now: float) -> bool:
        """Whether one more may come now; it is counted."""
        most = max(1.0, self.per_s)
        self._left = most if now - self._at > most else self._left + (now - self._at) * self.per_s
        self._left, self._at = min(most, self._left), now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
