"""Blobs by digest over HTTP, in ranges: from the sources of an order, or from mirrors of the site.

A source is a base URL; the blob of a digest is `<source>/<sha256>`, immutable, and a delta to it
`<source>/<sha256>/delta/<base>`, both served with ranges [wire-5]. Bodies are bounded, and a source
that sends next to nothing is given up like one that is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edgefleet_agent.adapters.http_session import FOREIGN, Answer, HttpSession
from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.transfer.transport import Intake, Wish
from edgefleet_contract.bundle import CHUNK_SIZE, Digest
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason

CONNECT_S: Final = 5.0
READ_S: Final = 20.0
BLOCK_S: Final = 120.0
"""How long 64 KiB may take: 550 bytes a second."""
LONGEST_WAIT_S: Final = 3600.0
"""However long a source says that it wants to be left alone."""


class HttpChunks:
    """`Transport` over HTTP. With `mirrors` it asks these, whatever the order says."""

    def __init__(
        self,
        *,
        mirrors: tuple[str, ...] | None = None,
        tls: Tls | None = None,
        block_s: float = BLOCK_S,
    ) -> None:
        self._mirrors = mirrors
        self._session = HttpSession(timeout=(CONNECT_S, READ_S), patience_s=block_s, tls=tls)
        self.name = "http" if mirrors is None else "mirror"
        self.is_metered = mirrors is None

    def sources(self, ordered: tuple[str, ...]) -> tuple[str, ...]:
        """See `Transport`."""
        return ordered if self._mirrors is None else self._mirrors

    def end(self) -> None:
        """See `Transport`."""
        self._session.end()

    def has(self, source: str, digest: Digest) -> bool:  # noqa: ARG002 - see `Transport`
        """See `Transport`: what comes over a network is not for nothing."""
        return False

    def pull(self, source: str, wish: Wish, sink: Intake) -> None:
        """See `Transport`: a request for each run of missing bytes."""
        for gap in sink.wanted:
            if self._pull_gap(source, wish, sink, gap):
                return

    def _pull_gap(self, source: str, wish: Wish, sink: Intake, gap: range) -> bool:
        """Ask for one run of bytes; whether more than that came, since the server has no ranges."""
        is_last = sink.size is None or gap.stop == sink.size
        with self._get(source, wish, gap, is_last) as answer:
            if answer.status == 416:
                if sink.size is None and gap.start:
                    return True  # nothing is left of what nobody knew the length of
                raise TransientError(f"{source} answered 416")
            has_all = answer.status != 206
            offset, most = (0, sink.size or gap.stop) if has_all else (gap.start, len(gap))
            for block in _bounded(answer, most, sink.what):
                sink.take(offset, block)
                offset += len(block)
        return has_all

    @contextmanager
    def _get(self, source: str, wish: Wish, gap: range, is_last: bool) -> Iterator[Answer]:
        path = wish.blob if wish.base is None else f"{wish.blob}/delta/{wish.base}"
        headers = {}
        if gap.start or not is_last:
            headers["Range"] = f"bytes={gap.start}-{'' if is_last else gap.stop - 1}"
        try:
            with self._session.get(f"{source.rstrip('/')}/{path}", headers) as answer:
                if answer.status == 404:
                    raise PeerError(f"{source} does not have {path}", reason=Reason.NOT_FOUND)
                if answer.status not in (200, 206, 416):
                    wait = _retry_after(answer) if answer.status in (429, 503) else None
                    raise TransientError(f"{source} answered {answer.status}", retry_after_s=wait)
                yield answer
        except FOREIGN as error:
            raise TransientError(f"{source}: {_short(error)}") from None


def _bounded(answer: Answer, most: int, what: str) -> Iterator[bytes]:
    """The body in blocks, refused as soon as it is longer than `most`."""
    seen = 0
    for block in answer.pieces(CHUNK_SIZE):
        seen += len(block)
        if seen > most:
            raise PeerError(
                f"{what}: more than the {most} bytes that were announced", reason=Reason.TOO_LARGE
            )
        yield block


def _retry_after(answer: Answer) -> float | None:
    """Seconds, where it says so in seconds: a date would need a clock that is right."""
    text = answer.header("Retry-After")
    return min(float(text), LONGEST_WAIT_S) if text.isdecimal() and text.isascii() else None


def _short(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
