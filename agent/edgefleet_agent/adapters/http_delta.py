"""Deltas over HTTP: `GET <source>/<new>/delta/<old>` [wire-5.6].

A delta is a favour: a source that has none, or is in trouble, is passed over, and where no source
has one the caller fetches the whole file. What arrived is believed for nothing (`delta.py`), and is
never longer than would be worth it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import BinaryIO, Final

from edgefleet_agent.adapters.http_session import FOREIGN, HttpSession
from edgefleet_agent.adapters.store import Store, disk_error
from edgefleet_agent.ports import Canceled
from edgefleet_contract.bundle import CHUNK_SIZE, Digest
from edgefleet_contract.delta import WORTH
from edgefleet_contract.errors import TransientError

log = logging.getLogger(__name__)

CONNECT_S: Final = 5.0
READ_S: Final = 20.0
BLOCK_S: Final = 120.0
"""How long 64 KiB may take: 550 bytes a second."""
TRIES: Final = 3


class HttpDeltas:
    """`DeltaSource` over HTTP. One transfer at a time; `cancel` ends it from another thread."""

    def __init__(self, store: Store, *, block_s: float = BLOCK_S) -> None:
        self._store = store
        self._session = HttpSession(timeout=(CONNECT_S, READ_S), patience_s=block_s)
        self._canceled = False

    def cancel(self) -> None:
        """End the transfer at hand."""
        self._canceled = True
        self._session.end()

    def resume(self) -> None:
        """Allow transfers again."""
        self._canceled = False

    def fetch_delta(
        self, old: Digest, new: Digest, *, size: int, sources: tuple[str, ...]
    ) -> Path | None:
        """See `ports.DeltaSource`."""
        path = self._store.part_path(new).with_name(f"{new}-{old}.delta")
        for source in sources:
            url = f"{source.rstrip('/')}/{new}/delta/{old}"
            for _ in range(TRIES):
                if self._canceled:
                    raise Canceled(source)
                try:
                    with self._store.fs.open_resumable(path) as file:
                        if self._fill(url, file, int(WORTH * size)):
                            return path
                except (*FOREIGN, TransientError) as error:
                    log.info("%s: %s", url, str(error).split("\n", 1)[0][:200])
                    continue
                except OSError as error:
                    raise disk_error("storing a delta", error) from error
                break
        self._store.fs.unlink(path)
        return None

    def _fill(self, url: str, file: BinaryIO, most: int) -> bool:
        """Go on where the file ends; False where this source has none that is worth it."""
        have = file.seek(0, os.SEEK_END)
        with self._session.get(url, {"Range": f"bytes={have}-"} if have else {}) as answer:
            if answer.status == 416:  # nothing is left; if that is a lie, the digest tells
                return True
            if answer.status == 404:
                return False
            if answer.status not in (200, 206):
                raise TransientError(f"answered {answer.status}")
            if answer.status == 200:
                self._store.fs.truncate(file, 0)
                have = file.seek(0)
            for piece in answer.pieces(CHUNK_SIZE):
                if self._canceled:
                    raise Canceled(url)
                have += len(piece)
                if have > most:
                    log.warning("%s: more than the %d bytes that are worth it", url, most)
                    return False
                self._store.fs.write(file, piece)
        return True
