"""A delta on its way in: a file that grows at its end, believed for nothing.

Nobody signed how long it is or what it hashes to. What it makes is held against what was signed, so
a part that a power cut spoilt, or that was begun from another source, costs bytes and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason


class Parcel:
    """A `Sink` for what is not longer than `most`; there is no file before the first byte.

    `progress` is told the bytes that are there.
    """

    size: int | None = None

    def __init__(
        self,
        fs: FileSystem,
        path: Path,
        *,
        most: int,
        what: str,
        progress: Callable[[int], None],
    ) -> None:
        self._fs, self._path, self._most, self._progress = fs, path, most, progress
        self.what = what
        self.end = path.stat().st_size if path.exists() else 0
        self._pending: dict[int, bytes] = {}
        if self.end > most:
            self.drop()

    @property
    def wanted(self) -> tuple[range, ...]:
        """See `Sink`."""
        return (range(self.end, self._most),)

    def take(self, offset: int, block: bytes) -> None:
        """See `Sink`."""
        if offset + len(block) > self._most:
            raise PeerError(
                f"{self.what}: more than the {self._most} bytes that are worth it",
                reason=Reason.TOO_LARGE,
            )
        self._pending[offset] = block
        for at in sorted(self._pending):
            if at > self.end:
                break
            self._append(self._pending.pop(at)[self.end - at :])

    def begin(self) -> None:
        """Forget what came too early from another source."""
        self._pending.clear()

    def settle(self, source: str) -> None:
        """The source has given all that it has.

        Raises:
            TransientError: that was nothing, or something between is missing.
        """
        if self._pending or not self.end:
            raise TransientError(f"{source} left a gap at {self.end}")

    def drop(self) -> None:
        """Begin anew."""
        self._fs.unlink(self._path)
        self._pending.clear()
        self.end = 0

    def _append(self, raw: bytes) -> None:
        if raw:
            with self._fs.open_resumable(self._path) as file:
                self._fs.write_at(file, self.end, raw)
            self.end += len(raw)
            self._progress(self.end)
