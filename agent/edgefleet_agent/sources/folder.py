"""A watched folder: each file that comes is one question; then it is moved, beside its result.

    inbox/a.png            new: asked once it has stopped to grow
    inbox/done/a.png       answered        inbox/done/a.png.json     what the model said
    inbox/failed/b.png     refused         inbox/failed/b.png.json   why

A file is in one of the three places at any moment, and never lost. It is asked at least once: after
a power cut between the answer and the result it is asked again, and the result written once. One
over which the process died three times is refused. Hidden files, drafts, links and kinds that are
not read are left alone.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeAlias

from edgefleet_agent.client.files import READABLE, read_feeds
from edgefleet_agent.sources import documents
from edgefleet_agent.sources.options import FolderOptions
from edgefleet_agent.sources.plugin import (
    Answer,
    Failure,
    Found,
    Item,
    Setup,
    Unreadable,
    waiting,
)
from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError

IS_LIVE: Final = False
MAX_BYTES: Final = 64 * 1024 * 1024
_ATTEMPTS: Final = 3
_SHORTEST_S: Final = 0.05
_NOTE: Final = ".reading"

_Stamp: TypeAlias = "tuple[int, int, int]"


def available() -> str:
    """A folder is always there to be had."""
    return ""


def open(setup: Setup) -> FolderSource:  # noqa: A001  # the word of the Protocol
    """The folder, made if it is missing.

    Raises:
        OperatorError: it cannot be made.
    """
    options = codec.decode(FolderOptions, dict(setup.options), what=setup.name)
    folder = setup.base / options.path
    try:
        for path in (folder, folder / "done", folder / "failed"):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            f"{setup.name}: cannot make {error.filename}: {error.strerror}",
            hint="choose a path that the agent may write",
        ) from None
    return FolderSource(folder, options.scale, setup)


class FolderSource:
    """See above. `settle` moves the file."""

    def __init__(self, folder: Path, scale: float | None, setup: Setup) -> None:
        self._folder, self._scale, self._setup = folder, scale, setup
        self._done, self._failed = folder / "done", folder / "failed"
        self._asked: dict[str, _Stamp] = {}

    def __iter__(self) -> Iterator[Found]:
        seen: dict[str, _Stamp] = {}
        while True:
            present = self._look()
            ready = [name for name, stamp in present.items() if seen.get(name) == stamp]
            seen = present
            for name in ready:
                yield self._take(name, present[name])
            yield None
            yield from waiting(time.monotonic() + max(self._setup.every_s, _SHORTEST_S))

    def settle(self, item: Item, outcome: Answer | Failure) -> None:
        """Write what came of it, then move the file: in this order, so that nothing is lost."""
        stamp = self._asked.pop(item.key)
        if isinstance(outcome, Failure):
            self._refuse(item.key, outcome.message)
            return
        said = documents.document(outcome, file=item.key, stamp=list(stamp))
        self._put(item.key, self._done, stamp, said)

    def close(self) -> None:
        """What it read and did not ask is nobody's fault."""
        (self._folder / _NOTE).unlink(missing_ok=True)

    def _look(self) -> dict[str, _Stamp]:
        """The files that may be read, the oldest first."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in READABLE:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime_ns, entry.name, _stamp(status)))
        return {name: stamp for _, name, stamp in sorted(found)}

    def _take(self, name: str, stamp: _Stamp) -> Found:
        path = self._folder / name
        if self._is_answered(name, stamp):
            return None
        model = self._setup.describe()
        try:
            self._note(name, stamp)
            if stamp[0] > MAX_BYTES:
                raise OperatorError(f"{name} has {stamp[0]} bytes, at most {MAX_BYTES} are read")
            feeds = read_feeds(str(path), model, self._scale)
        except FileNotFoundError:
            return None  # somebody took it back
        except OperatorError as error:
            self._refuse(name, error.message)
            return Unreadable(error.message)
        self._asked[name] = stamp
        return Item(feeds, {"file": name}, key=name)

    def _note(self, name: str, stamp: _Stamp) -> None:
        """Note what is read, for the process that comes after one that died over it.

        Raises:
            OperatorError: so many did.
        """
        note = self._folder / _NOTE
        told: Any = None
        with suppress(OSError, ValueError):  # the first, or one that a power cut spoilt
            told = json.loads(note.read_text(encoding="utf-8"))
        of = [name, *stamp]
        died = told["died"] if isinstance(told, dict) and told.get("of") == of else 0
        if died >= _ATTEMPTS:
            raise OperatorError(f"the process that read it died over it {died} times")
        note.write_text(json.dumps({"of": of, "died": died + 1}), encoding="utf-8")

    def _is_answered(self, name: str, stamp: _Stamp) -> bool:
        """Whether its result was written before a process died; then the file only moves."""
        for target in _names(self._done, name):
            said = _result(self._done, target)
            if said is None:
                return False
            if said.get("stamp") == list(stamp) and not (self._done / target).exists():
                self._move(name, self._done / target)
                return True
        return False

    def _refuse(self, name: str, why: str) -> None:
        self._put(name, self._failed, None, {"file": name, "error": why})

    def _put(self, name: str, folder: Path, stamp: _Stamp | None, said: dict[str, object]) -> None:
        target = next(
            target
            for target in _names(folder, name)
            if not (folder / target).exists() and _result(folder, target) is None
        )
        documents.write(folder / f"{target}.json", said)
        try:
            present = _stamp((self._folder / name).lstat())
        except FileNotFoundError:
            return
        if stamp in (None, present):  # else another file took its name meanwhile: it is next
            self._move(name, folder / target)
        (self._folder / _NOTE).unlink(missing_ok=True)

    def _move(self, name: str, target: Path) -> None:
        (self._folder / name).rename(target)
        documents.sync(target.parent)
        documents.sync(self._folder)


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _names(folder: Path, name: str) -> Iterator[str]:
    """The name, then others for a file that was called like an earlier one."""
    yield name
    path = folder / name
    for number in count(2):
        yield f"{path.stem}~{number}{path.suffix}"


def _result(folder: Path, target: str) -> dict[str, Any] | None:
    """What was written about a file; empty where it cannot be read."""
    try:
        value = json.loads((folder / f"{target}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
