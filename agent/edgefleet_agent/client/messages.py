"""What a client and an agent say to each other, as values; and where an agent is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body's value.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model of the device. `reason` says why it is not ready."""

    name: str
    version: str
    is_ready: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a model takes and gives."""

    name: str
    version: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """An agent that is reached over TCP."""

    host: str
    port: int
    is_tls: bool = False


def parse_address(address: str) -> Path | Server:
    """The socket's path of `unix:PATH`, or the server of `HOST:PORT` or `https://HOST:PORT`.

    Raises:
        OperatorError: `address` is none of these.
    """
    if address.startswith("unix:"):
        return Path(address.removeprefix("unix:"))
    rest = address.removeprefix("https://").removesuffix("/")
    is_tls = address.startswith("https://")
    host, colon, port = rest.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535 or "/" in host:
        raise OperatorError(
            f"{address!r} is not an address", hint="give unix:PATH, HOST:PORT or https://HOST:PORT"
        )
    return Server(host.strip("[]"), int(port), is_tls)
