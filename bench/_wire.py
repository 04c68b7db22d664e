"""A client that costs as little as one in Python can: requests are bytes made before, one socket.

What it adds is the same for every server that is compared. It never connects again by itself: a
connection that is closed is an error, so no lost answer is hidden.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_PIECE: Final = 256 * 1024


class HungUp(ConnectionError):
    """The server closed the connection before its answer was whole."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers with lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST."""
    return _request("POST", path, body, headers or {})


def get(path: str) -> bytes:
    """The bytes of a GET."""
    return _request("GET", path, b"", {})


def _request(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


class Wire:
    """One connection to `unix:/path` or `host:port`."""

    def __init__(self, address: str, *, timeout_s: float = 60) -> None:
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout_s)
            self._socket.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)), timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> Reply:
        """The answer to a request that `post` or `get` made.

        Raises:
            HungUp: see there.
            OSError: the connection broke, or nothing came in time.
        """
        self._socket.sendall(request)
        found = b""
        while (end := found.find(b"\r\n\r\n")) < 0:
            found += self._more()
        first, *lines = found[:end].decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        body = found[end + 4 :]
        if headers.get("transfer-encoding") == "chunked":
            body = self._chunks(body)
        else:
            size = int(headers.get("content-length", 0))
            while len(body) < size:
                body += self._more()
        return Reply(int(first.split(" ", 2)[1]), headers, body)

    def _chunks(self, found: bytes) -> bytes:
        whole = b""
        while True:
            while (end := found.find(b"\r\n")) < 0:
                found += self._more()
            size = int(found[:end].split(b";")[0], 16)
            while len(found) < end + 2 + size + 2:
                found += self._more()
            whole += found[end + 2 : end + 2 + size]
            found = found[end + 2 + size + 2 :]
            if size == 0:
                return whole

    def _more(self) -> bytes:
        piece = self._socket.recv(_PIECE)
        if not piece:
            raise HungUp("the server hung up")
        return piece
