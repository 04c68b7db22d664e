"""Servers that lie about one blob, in every way that bytes on a socket can lie; the rest is honest.

A lie is told the socket, the honest body and the offset that was asked for. It stops when the
client goes away, or when the server is closed.
"""

from __future__ import annotations

import gzip
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from edgefleet_contract.bundle import Digest
from edgefleet_contract.reasons import Reason

Say: TypeAlias = Callable[[bytes], None]
PAUSE_S = 0.05
TRANSIENT = "try again later"


@dataclass(frozen=True, slots=True)
class Lie:
    """One way to lie, and with what it may be refused (TRANSIENT: not at all, but in vain)."""

    tell: Callable[[Liar, Say, bytes, int], None]
    refused: frozenset[str]

    @property
    def name(self) -> str:
        return self.tell.__name__


@cache
def bomb() -> bytes:
    """256 MiB in a kilobyte or two."""
    return gzip.compress(gzip.compress(bytes(1 << 28), 1))


class Liar(socketserver.ThreadingTCPServer):
    """`blobs` by digest; the one of `victim` is given by `lie`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.victim = ""
        self.lie: Lie | None = None
        self.asked: list[str] = []
        self.gone = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def tell(self, victim: Digest, lie: Lie) -> None:
        """From now on, lie about this blob."""
        self.victim, self.lie = victim, lie


class _Handler(socketserver.StreamRequestHandler):
    server: Liar

    def handle(self) -> None:
        liar = self.server
        path, begin = "", 0
        for line in iter(self.rfile.readline, b"\r\n"):
            if not line:
                return
            words = line.decode("latin-1").split()
            path = words[1].strip("/") if words[0] == "GET" else path
            if words[0].lower() == "range:":
                begin = int(words[1].removeprefix("bytes=").partition("-")[0])
        liar.asked.append(path)
        body = liar.blobs.get(path)
        with suppress(OSError):
            if path == liar.victim and liar.lie is not None:
                liar.lie.tell(liar, self.request.sendall, body or b"", begin)
            elif body is None:
                self.request.sendall(head(404, length=0))
            else:
                status = 206 if begin else 200
                self.request.sendall(head(status, length=len(body) - begin) + body[begin:])
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


def head(status: int, *more: str, length: int | None = None) -> bytes:
    """The head of an answer, after which the connection closes."""
    lines = [f"HTTP/1.1 {status} x", "Connection: close", *more]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def endless_body(liar: Liar, say: Say, body: bytes, _: int) -> None:
    say(head(200))
    while not liar.gone.is_set():
        say(body + b"\0" * 65536)


def endless_head(liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(b"HTTP/1.1 200 x\r\n")
    while not liar.gone.is_set():
        say(b"X-More: " + b"a" * 1000 + b"\r\n")


def endless_header_line(liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(b"HTTP/1.1 200 x\r\nX: ")
    while not liar.gone.is_set():
        say(b"a" * 65536)


def endless_continue(liar: Liar, say: Say, _body: bytes, _: int) -> None:
    while not liar.gone.is_set():
        say(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def slow_head(liar: Liar, say: Say, _body: bytes, _: int) -> None:
    while not liar.gone.wait(PAUSE_S):
        say(b"H")


def slow_body(liar: Liar, say: Say, body: bytes, begin: int) -> None:
    say(head(200, length=len(body) - begin))
    for byte in body[begin:]:
        if liar.gone.wait(PAUSE_S):
            return
        say(bytes([byte]))


def tiny_chunks(liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(head(200, "Transfer-Encoding: chunked"))
    while not liar.gone.wait(PAUSE_S):
        say(b"1\r\n\0\r\n")


def longer_than_said(_liar: Liar, say: Say, body: bytes, begin: int) -> None:
    say(head(200, length=len(body) - begin + 100) + body[begin:])


def shorter_than_said(_liar: Liar, say: Say, body: bytes, begin: int) -> None:
    say(head(200, length=max(0, len(body) - begin - 7)) + body[begin:-7])


def one_byte_more(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    say(head(200, length=len(body) + 1) + body + b"\0")


def negative_length(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    say(head(200, length=-1) + body[:-1])


def two_lengths(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    say(head(200, "Content-Length: 3", length=len(body)) + body)


def nothing(_liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(head(200, length=0))


def other_bytes(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    other = bytes(byte ^ 1 for byte in body)
    say(head(200, length=len(body)) + other)


def other_bytes_as_206(_liar: Liar, say: Say, body: bytes, begin: int) -> None:
    other = bytes(byte ^ 1 for byte in body)
    there = f"Content-Range: bytes {begin}-{len(body) - 1}/{len(body)}"
    say(head(206, there, length=len(body)) + other)


def wrong_range(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    there = f"Content-Range: bytes 5-{len(body) - 1}/{len(body)}"
    say(head(206, there, length=max(0, len(body) - 5)) + body[5:])


def redirect_to_the_bytes(liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(head(302, f"Location: {liar.url}/elsewhere", length=0))


def redirect_round_and_round(liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(head(301, f"Location: {liar.url}/{liar.victim}", length=0))


def redirect_to_a_file(_liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(head(307, "Location: file:///etc/passwd", length=0))


def gzip_of_the_bytes(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    packed = gzip.compress(body)
    say(head(200, "Content-Encoding: gzip", length=len(packed)) + packed)


def gzip_bomb(_liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(head(200, "Content-Encoding: gzip, gzip", length=len(bomb())) + bomb())


def bad_chunk_size(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    say(head(200, "Transfer-Encoding: chunked") + b"-5\r\n" + body)


def huge_chunk_size(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    say(head(200, "Transfer-Encoding: chunked") + b"f" * 400 + b"\r\n" + body)


def not_http(_liar: Liar, say: Say, _body: bytes, _: int) -> None:
    say(b"220 mail.example ESMTP\r\n\0\xff\r\n")


def gone_at_once(_liar: Liar, _say: Say, _body: bytes, _: int) -> None:
    return


def strange_status(_liar: Liar, say: Say, body: bytes, _: int) -> None:
    say(head(304, length=len(body)) + body)


_LATER = frozenset({TRANSIENT})
_OTHER = frozenset({Reason.DIGEST_MISMATCH})
_EITHER = _LATER | _OTHER | {Reason.TOO_LARGE}
LIES = (
    *(Lie(tell, _LATER) for tell in (slow_head, slow_body, tiny_chunks, endless_head)),
    *(Lie(tell, _LATER) for tell in (endless_header_line, endless_continue, two_lengths)),
    *(Lie(tell, _LATER) for tell in (redirect_to_the_bytes, redirect_round_and_round)),
    *(Lie(tell, _LATER) for tell in (redirect_to_a_file, gzip_of_the_bytes, gzip_bomb)),
    *(Lie(tell, _LATER) for tell in (bad_chunk_size, huge_chunk_size, not_http, gone_at_once)),
    Lie(strange_status, _LATER),
    *(Lie(tell, _OTHER) for tell in (other_bytes, other_bytes_as_206)),
    Lie(wrong_range, _EITHER),
    *(Lie(tell, _EITHER) for tell in (endless_body, one_byte_more, negative_length, nothing)),
    *(Lie(tell, _EITHER) for tell in (longer_than_said, shorter_than_said)),
)


@contextmanager
def lying() -> Iterator[Liar]:
    """A server that answers until the block ends."""
    with Liar() as liar:
        thread = threading.Thread(target=liar.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield liar
        finally:
            liar.gone.set()
            liar.shutdown()
            thread.join()
