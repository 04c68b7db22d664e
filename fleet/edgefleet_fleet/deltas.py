"""The deltas that the fleet hands out: made once for two blobs, kept in a folder of their own.

    deltas/<new>-<old>   the delta; an empty file where none is worth it

Only model and weight files that have one path in bundles of one model are tried, one pair at a
time, in a process of its own at the lowest priority, with a deadline. The queue is bounded, for
anybody may ask; so is the folder: what was not asked for longest goes first, and what the shelf has
no blobs of any more. A delta that is missing costs bytes on the way and nothing else, so nothing
here is durable, and every failure means: no delta.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from edgefleet_contract.bundle import Digest, Role
from edgefleet_contract.errors import EdgefleetError
from edgefleet_fleet.delta_encoder import NOT_WORTH_IT
from edgefleet_fleet.work import Room

log = logging.getLogger("edgefleet.deltas")

MAX_FILE: Final = 512 * 1024 * 1024
"""Of larger files no delta is made: it would take an hour."""
DEADLINE_S: Final = 1800.0
SOON_S: Final = 2
"""When to ask again for one that is being made: a model of a few megabytes takes a second or two.

Orders go out at once, and the first devices ask before it is there. They wait a little for a file
that is worth it (half a minute in all), rather than that a rollout waits for its deltas: so neither
a slow encoder nor a device with a release that nobody thought of holds anything up.
"""
_MAX_QUEUE: Final = 64
_MAX_KEPT: Final = 10_000
_MAX_BYTES: Final = 4 * 1024**3
_WORK: Final = ".work-"


class Pair(NamedTuple):
    """From one blob to another."""

    old: Digest
    new: Digest

    @property
    def name(self) -> str:
        """The name of its delta."""
        return f"{self.new}-{self.old}"


class Deltas:
    """The deltas of one control room."""

    def __init__(self, room: Room, folder: Path, *, deadline_s: float = DEADLINE_S) -> None:
        self._room = room
        self._folder = folder
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._queue: dict[Pair, None] = {}
        self._wake: Callable[[], None] = _nobody

    def find(self, old: Digest, new: Digest) -> Path | None:
        """The delta; None where there is none. Where it may come to be, it is begun."""
        pair = Pair(old, new)
        if old == new:
            return None
        path = self._folder / pair.name
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            with self._room.store.begin() as tx:
                if tx.bundles.are_kin(old, new, max_bytes=MAX_FILE):
                    self._want(pair)
            return None
        if size == 0:
            return None
        try:
            os.utime(path)  # it was asked for
        except FileNotFoundError:  # tidied away at this moment
            return None
        return path

    def is_coming(self, old: Digest, new: Digest) -> bool:
        """Whether it is being made, or will be."""
        with self._lock:
            return Pair(old, new) in self._queue

    def expect(self, bundle: str) -> None:
        """Begin the deltas to a bundle from what devices run of its model."""
        with self._room.store.begin() as tx:
            found = tx.bundles.get(bundle)
            running = {
                model.bundle_sha256
                for device in tx.devices.list()
                if device.reported is not None
                for model in device.reported.models
                if found is not None and model.model == found.model
            }
            fresh = {file.path: file for file in tx.bundles.files(bundle)}
            pairs = [
                Pair(file.sha256, fresh[file.path].sha256)
                for old in sorted(running - {bundle})
                for file in tx.bundles.files(old)
                if file.role in (Role.MODEL, Role.WEIGHTS)
                and file.path in fresh
                and max(file.size, fresh[file.path].size) <= MAX_FILE
            ]
        for pair in pairs:
            if pair.old != pair.new and not (self._folder / pair.name).exists():
                self._want(pair)

    async def run(self) -> None:
        """Make what is wanted, until cancelled."""
        loop, wanted = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(wanted.set)

        self._wake = wake
        try:
            try:
                await self._room.threads.run(self._prepare)
            except EdgefleetError as error:
                log.warning("deltas of a shelf that does not answer: %s", error.message)
            while True:
                wanted.clear()
                await self.work_off()
                await wanted.wait()
        finally:
            self._wake = _nobody

    async def work_off(self) -> None:
        """Make what is wanted now."""
        while (pair := self._next()) is not None:
            try:
                await self._make(pair)
            except (OSError, EdgefleetError) as error:
                log.warning("delta %s to %s: %s", pair.old[:8], pair.new[:8], error)
            finally:
                with self._lock:
                    self._queue.pop(pair, None)

    def _want(self, pair: Pair) -> None:
        with self._lock:
            if len(self._queue) >= _MAX_QUEUE:
                return
            self._queue.setdefault(pair)
        self._wake()

    def _next(self) -> Pair | None:
        with self._lock:
            return next(iter(self._queue), None)

    async def _make(self, pair: Pair) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=_WORK) as name:
            work = Path(name)
            await self._room.threads.run(self._fetch, pair, work)
            status = await self._encode(pair, work)
            out = work / "delta"
            if status != 0:
                out.write_bytes(b"")
            size = out.stat().st_size
            out.replace(self._folder / pair.name)
        if status == 0:
            log.info("delta %s to %s: %d bytes", pair.old[:8], pair.new[:8], size)
        await self._room.threads.run(self.tidy)

    def _fetch(self, pair: Pair, work: Path) -> None:
        for digest, name in ((pair.old, "old"), (pair.new, "new")):
            with (work / name).open("wb") as file:
                for piece in self._room.shelf.read(digest):
                    file.write(piece)

    async def _encode(self, pair: Pair, work: Path) -> int:
        """The exit status of the encoder; it is gone when this returns or raises."""
        encoder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgefleet_fleet.delta_encoder", "old", "new", "delta"),
            cwd=work,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self._deadline_s):
                _, said = await encoder.communicate()
        except TimeoutError:
            log.warning("delta %s to %s: given up", pair.old[:8], pair.new[:8])
            return -1
        finally:
            if encoder.returncode is None:
                encoder.kill()
                await encoder.wait()
        status = encoder.returncode
        if status not in (0, NOT_WORTH_IT):
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
            log.warning("delta %s to %s: %s %s", pair.old[:8], pair.new[:8], status, last[:200])
        return -1 if status is None else status

    def _prepare(self) -> None:
        """Remove what a crash left, and try again what was given up."""
        if self._folder.is_dir():
            for path in list(self._folder.iterdir()):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.stat().st_size == 0:
                    path.unlink(missing_ok=True)
            self.tidy()

    def tidy(self) -> None:
        """Keep the folder within its bounds."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        kept = sorted(_looked_at(found), reverse=True)
        total = 0
        for number, (_, size, path) in enumerate(kept):
            total += size
            new, _, old = path.name.partition("-")
            there = self._room.shelf.has(Digest(new)) and self._room.shelf.has(Digest(old))
            if number >= _MAX_KEPT or total > _MAX_BYTES or not there:
                path.unlink(missing_ok=True)


def _looked_at(paths: Iterable[Path]) -> Iterator[tuple[float, int, Path]]:
    """When each file was asked for last, and its size. Several may tidy at once: what another has
    taken away meanwhile is not there."""
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield status.st_mtime, status.st_size, path


def _nobody() -> None:
    """Nobody waits."""
