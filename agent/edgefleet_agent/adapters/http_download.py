"""Blobs by digest over HTTP: every chunk is verified on arrival, and a broken transfer resumes.

A source is a base URL; the blob of a digest is `<source>/<sha256>`, immutable, served with ranges
[wire-5]. Nothing a server says is believed but bytes that hash to what was signed: a chunk that
does not is dropped before it touches the file, and asked for again a few times, from the next
source if there is one. A source that sends next to nothing is given up like one that is gone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from edgefleet_agent.adapters.http_session import FOREIGN, Answer, HttpSession
from edgefleet_agent.adapters.store import Store, disk_error
from edgefleet_agent.ports import Canceled
from edgefleet_contract.bundle import CHUNK_SIZE, Digest, sha256
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason

log = logging.getLogger(__name__)

CONNECT_S: Final = 5.0
READ_S: Final = 20.0
BLOCK_S: Final = 120.0
"""How long 64 KiB may take: 550 bytes a second."""
BAD_CHUNKS: Final = 3
"""How often a file's bytes may differ from what was signed before the file is given up."""
DIGEST_BYTES: Final = 32


class HttpFetcher:
    """`Fetcher` over HTTP. One transfer at a time; `cancel` ends it from another thread."""

    def __init__(self, store: Store, *, block_s: float = BLOCK_S) -> None:
        self._store = store
        self._session = HttpSession(timeout=(CONNECT_S, READ_S), patience_s=block_s)
        self._canceled = False

    def cancel(self) -> None:
        """End the transfer at hand, also one that waits for its source."""
        self._canceled = True
        self._session.end()

    def resume(self) -> None:
        """Allow transfers again."""
        self._canceled = False

    def fetch(
        self, digest: Digest, *, max_bytes: int, sources: tuple[str, ...], what: str
    ) -> bytes:
        """See `ports.Fetcher`."""
        trouble = _Trouble(what)
        for source in sources:
            with trouble.at(source), self._get(source, digest, start=0) as answer:
                raw = b"".join(self._bounded(answer, max_bytes, what))
                if sha256(raw) == digest:
                    return raw
                raise PeerError(
                    f"{what}: {source} gave other bytes than were signed",
                    reason=Reason.DIGEST_MISMATCH,
                )
        if self._canceled:
            raise Canceled(what)
        raise trouble.verdict()

    def fetch_file(
        self,
        digest: Digest,
        *,
        size: int,
        chunk_list_sha256: Digest,
        sources: tuple[str, ...],
        what: str,
        progress: Callable[[int], None],
    ) -> int:
        """See `ports.Fetcher`."""
        if self._store.has(digest):
            progress(size)
            return 0
        chunks = -(-size // CHUNK_SIZE)
        table = self.fetch(
            chunk_list_sha256,
            max_bytes=chunks * DIGEST_BYTES,
            sources=sources,
            what=f"chunk list of {what}",
        )
        if len(table) != chunks * DIGEST_BYTES:
            raise PeerError(
                f"{what}: its chunk list has {len(table)} bytes", reason=Reason.DIGEST_MISMATCH
            )
        try:
            with self._store.fs.open_resumable(self._store.part_path(digest)) as part:
                part_of = _Part(self._store, part, table, size, progress)
                transferred = self._fill(part_of, digest, sources, what)
                if part_of.whole.hexdigest() != digest:
                    raise PeerError(
                        f"{what}: the whole is not what was signed", reason=Reason.DIGEST_MISMATCH
                    )
                self._store.sync_part(digest, part)
        except OSError as error:
            raise disk_error(f"storing {what}", error) from error
        self._store.admit(digest)
        return transferred

    def _fill(self, part: _Part, digest: Digest, sources: tuple[str, ...], what: str) -> int:
        """Fill the part from the sources in turn; the bytes that were transferred."""
        transferred = 0
        trouble = _Trouble(what)
        for source in sources * BAD_CHUNKS:
            if part.is_complete:
                break
            if source in trouble.without:
                continue
            part.begin()
            with trouble.at(source), self._get(source, digest, start=part.offset) as answer:
                if answer.status != 206 and part.offset:
                    part.restart()  # the server knows no ranges
                for block in self._bounded(answer, part.size - part.offset, what):
                    transferred += len(block)
                    if not part.take(block):
                        raise PeerError(
                            f"{what}: {source} gave a chunk that is not what was signed",
                            reason=Reason.DIGEST_MISMATCH,
                        )
                if not part.is_complete:
                    raise TransientError(f"{source} gave {part.offset} of {part.size} bytes")
        if self._canceled:
            raise Canceled(what)
        if not part.is_complete:
            raise trouble.verdict()
        return transferred

    @contextmanager
    def _get(self, source: str, digest: Digest, *, start: int) -> Iterator[Answer]:
        if self._canceled:
            raise Canceled(source)
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._session.get(f"{source.rstrip('/')}/{digest}", headers) as answer:
            if answer.status == 404:
                raise PeerError(f"{source} does not have {digest[:12]}", reason=Reason.NOT_FOUND)
            if answer.status not in (200, 206):
                raise TransientError(f"{source} answered {answer.status}")
            yield answer

    def _bounded(self, answer: Answer, most: int, what: str) -> Iterator[bytes]:
        """The body in blocks, refused as soon as it is longer than `most`."""
        seen = 0
        for block in answer.pieces(CHUNK_SIZE):
            if self._canceled:
                raise Canceled(what)
            seen += len(block)
            if seen > most:
                raise PeerError(
                    f"{what}: more than the {most} bytes that were announced",
                    reason=Reason.TOO_LARGE,
                )
            yield block


class _Trouble:
    """What went wrong with each source; decides what the whole is called when all failed."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._refusals: list[PeerError] = []
        self._passing: list[str] = []
        self.without: set[str] = set()

    @contextmanager
    def at(self, source: str) -> Iterator[None]:
        try:
            yield
        except PeerError as error:
            self._refusals.append(error)
            if error.reason is Reason.NOT_FOUND:
                self.without.add(source)
            log.warning("%s", error.message)
        except (*FOREIGN, TransientError) as error:
            self._passing.append(f"{source}: {_short(error)}")
            log.info("%s from %s: %s", self._what, source, _short(error))

    def verdict(self) -> PeerError | TransientError:
        """Bad bytes first; then a passing trouble, which waiting may cure; then what is missing."""
        wrong = [error for error in self._refusals if error.reason is not Reason.NOT_FOUND]
        if wrong:
            return wrong[-1]
        if self._passing:
            return TransientError(f"{self._what}: {self._passing[-1]}")
        if self._refusals:
            return self._refusals[-1]
        return TransientError(f"{self._what}: the order names no source")


class _Part:
    """A file on its way in: whole good chunks only, and the running digest of them."""

    def __init__(
        self,
        store: Store,
        file: BinaryIO,
        table: bytes,
        size: int,
        progress: Callable[[int], None],
    ) -> None:
        self._fs, self._file, self._table, self._progress = store.fs, file, table, progress
        self.size = size
        self._pending = b""
        self.whole = hashlib.sha256()
        self.offset = 0
        self._find_good_prefix()

    @property
    def is_complete(self) -> bool:
        return self.offset == self.size

    def _find_good_prefix(self) -> None:
        self._file.seek(0)
        while not self.is_complete:
            chunk = self._file.read(min(CHUNK_SIZE, self.size - self.offset))
            if not self._is_next(chunk):
                break
            self.whole.update(chunk)
            self.offset += len(chunk)
        self._fs.truncate(self._file, self.offset)
        self._file.seek(self.offset)
        self._progress(self.offset)

    def _is_next(self, chunk: bytes) -> bool:
        index = self.offset // CHUNK_SIZE
        wanted = self._table[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        return hashlib.sha256(chunk).digest() == wanted

    def restart(self) -> None:
        """From the beginning: the source sends the whole file."""
        self._fs.truncate(self._file, 0)
        self._file.seek(0)
        self.whole, self.offset, self._pending = hashlib.sha256(), 0, b""

    def take(self, block: bytes) -> bool:
        """Keep what makes whole chunks of a block; False where a chunk is not what was signed."""
        self._pending += block
        while not self.is_complete:
            need = min(CHUNK_SIZE, self.size - self.offset)
            if len(self._pending) < need:
                return True
            chunk, self._pending = self._pending[:need], self._pending[need:]
            if not self._is_next(chunk):
                self._pending = b""
                return False
            self._fs.write(self._file, chunk)
            self.whole.update(chunk)
            self.offset += need
            self._progress(self.offset)
        return True

    def begin(self) -> None:
        """Forget a chunk that broke off before: it is asked for again."""
        self._pending = b""


def _short(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
