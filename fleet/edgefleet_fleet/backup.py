"""A control room in one file, and a control room made of one: `fleet backup`, `fleet restore`.

    backup.json  tables/NAME.jsonl  data/…  blobs/<digest>  SHA256SUMS

A tar file. Written while the service runs: the tables are one moment of the data base, and the
blobs are read after it, so that what the tables name is there. Restored into an empty place or not
at all: the whole file is checked against its sums first, the data base is filled in one
transaction, and the data directory gets its name last. It holds every secret of the fleet, and so
has mode 0600.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

import sqlalchemy as sa

from edgefleet_contract import __version__, codec
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_fleet.adapters.gather import PIECE
from edgefleet_fleet.adapters.shelves import open_shelf
from edgefleet_fleet.adapters.sql import dump
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir, sync_folder, write_file
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.ports import Shelf

FORMAT: Final = "edgefleet.backup/1"
_ABOUT: Final = "backup.json"
_SUMS: Final = "SHA256SUMS"
_READABLE: Final = ("fleet.toml",)
_ABOUT_MAX: Final = 64 * 1024
_NAME: Final = re.compile(
    r"tables/[a-z_]{1,64}\.jsonl|blobs/[0-9a-f]{64}"
    r"|data/(keys/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}|operator\.token|fleet\.toml)"
)

Tell = Callable[[str, int, int], None]
"""What is being done, how many of it are done, and of how many (0: not known)."""


@dataclass(frozen=True, slots=True)
class About:
    """What a backup says of itself. `created` is in seconds since 1970."""

    format: str
    fleet: str
    release: str
    revision: str
    created: int
    blobs: bool


def write(out: Path, data: DataDir, store: Store, shelf: Shelf, *, blobs: bool, tell: Tell) -> int:
    """Write a backup to `out`, whole or not at all; its size in bytes.

    Raises:
        OperatorError: `out` is there, or something cannot be read or written.
    """
    if out.exists():
        raise OperatorError(f"{out} is there already", hint="name another file")
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w+b") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _write(_Writer(tar), data, store, shelf, blobs=blobs, tell=tell)
            size = file.tell()
            os.fsync(file.fileno())
        os.link(part, out)  # not `replace`: what came there meanwhile stays
        sync_folder(out.parent.resolve())
    except OSError as error:
        raise OperatorError(f"cannot write {out}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return size


def _write(
    into: _Writer, data: DataDir, store: Store, shelf: Shelf, *, blobs: bool, tell: Tell
) -> None:
    fleet, revision = store.fleet(), store.revision()
    with store.snapshot() as connection, tempfile.TemporaryFile() as lines:
        about = About(FORMAT, fleet, __version__, revision, int(time.time()), blobs)
        into.add(_ABOUT, json.dumps(asdict(about), indent=1).encode())
        for number, (table, rows) in enumerate(dump.dump(connection)):
            tell("tables", number, 0)
            lines.seek(0)
            lines.truncate()
            lines.writelines(rows)
            into.add_file(f"tables/{table}.jsonl", lines)
    for path in (data.token, data.config, *sorted(data.keys.iterdir())):
        if path.is_file():
            into.add(f"data/{path.relative_to(data.root)}", path.read_bytes())
    if blobs:
        digests = tuple(shelf.digests())
        for number, digest in enumerate(digests):
            tell("blobs", number, len(digests))
            with tempfile.TemporaryFile() as blob:
                try:
                    blob.writelines(shelf.read(digest))
                except NotFound:  # its bundle was removed meanwhile
                    continue
                into.add_file(f"blobs/{digest}", blob)
        tell("blobs", len(digests), len(digests))
    into.close()


def read_about(file: Path) -> About:
    """What a backup says of itself.

    Raises:
        OperatorError: it is not one, or of a format that is not known here.
    """
    with _opened(file) as tar:
        member = tar.next()
        content = tar.extractfile(member) if member is not None and member.name == _ABOUT else None
        raw = content.read(_ABOUT_MAX) if content is not None else b""
    try:
        about = codec.decode(About, json.loads(raw), what=file.name)
    except (ValueError, Malformed):
        raise OperatorError(f"{file} is not a backup of a control room") from None
    if about.format != FORMAT:
        raise OperatorError(f"{file} has the format {about.format[:40]!r}; {FORMAT} is known")
    return about


def restore(file: Path, data: DataDir, config: Config, *, tell: Tell) -> About:
    """Make a control room of a backup, in an empty place, or nothing.

    The data base and the shelf are those of `config`, by default in the data directory.

    Raises:
        OperatorError: the file is damaged, or the directory or the data base is not empty.
    """
    about = read_about(file)
    if data.root.exists() and any(data.root.iterdir()):
        raise OperatorError(f"{data.root} is not empty", hint="name a new directory with --data")
    _check(file, tell)
    staged = DataDir(data.root.with_name(f".{data.root.name}.{secrets.token_hex(4)}"))
    try:
        staged.keys.mkdir(parents=True, mode=0o700)
        staged.root.chmod(0o711)
        with contextlib.closing(Store(config.database_url or sqlite_url(staged.database))) as store:
            store.migrate(about.revision)
            shelf = open_shelf(config, staged)
            with store.loading() as connection:
                _unpack(file, staged, connection, shelf, tell)
                dump.count_on(connection)
            store.migrate()
        if data.root.exists():
            data.root.rmdir()
        staged.root.rename(data.root)
        sync_folder(data.root.parent.resolve())
    except OSError as error:
        raise OperatorError(f"cannot restore into {data.root}: {error.strerror}") from None
    finally:
        shutil.rmtree(staged.root, ignore_errors=True)
    return about


def _check(file: Path, tell: Tell) -> None:
    """Read the whole file, and hold every member against the sums at its end."""
    found: dict[str, str] = {}
    with _opened(file) as tar:
        for number, member in enumerate(tar):
            tell("checking", number, 0)
            content = _content(file, tar, member)
            if member.name == _SUMS:
                lines = content.read(member.size).decode("ascii", "replace").splitlines()
                said = {name: digest for digest, _, name in (x.partition("  ") for x in lines)}
                if said != found or tar.next() is not None:
                    raise _damaged(file, "its sums are not those of its content")
                return
            found[member.name] = _sum_of(content)
    raise _damaged(file, "it ends too early")


def _unpack(
    file: Path, staged: DataDir, connection: sa.Connection, shelf: Shelf, tell: Tell
) -> None:
    with _opened(file) as tar:
        for number, member in enumerate(tar):
            tell("restoring", number, 0)
            content = _content(file, tar, member)
            kind, _, name = member.name.partition("/")
            if kind == "tables":
                dump.load(connection, name.removesuffix(".jsonl"), content)
            elif kind == "blobs":
                shelf.put(Digest(name), content, max_bytes=member.size)
            elif kind == "data":
                is_open = name in _READABLE or name.endswith((".crt", "ca.pem"))
                mode = 0o644 if is_open else 0o600
                write_file(staged.root / name, content.read(), mode=mode)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as tar:
            yield tar
    except tarfile.TarError as error:
        raise _damaged(file, str(error)) from None
    except OSError as error:
        raise OperatorError(f"cannot read {file}: {error.strerror}") from None


def _content(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None or not (member.name in (_ABOUT, _SUMS) or _NAME.fullmatch(member.name)):
        raise _damaged(file, f"it holds {member.name[:80]!r}")
    return content


def _damaged(file: Path, why: str) -> OperatorError:
    return OperatorError(
        f"{file} is not a whole backup: {why}", hint="take an older backup; nothing was restored"
    )


def _sum_of(content: IO[bytes]) -> str:
    hasher = hashlib.sha256()
    while piece := content.read(PIECE):
        hasher.update(piece)
    return hasher.hexdigest()


class _Writer:
    """Adds members to a tar file, and their sums at its end."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._sums: dict[str, str] = {}

    def add(self, name: str, raw: bytes) -> None:
        """A member that is at hand."""
        self.add_file(name, io.BytesIO(raw))

    def add_file(self, name: str, content: IO[bytes]) -> None:
        """A member that is a file, from its beginning."""
        content.seek(0)
        self._sums[name] = _sum_of(content)
        member = tarfile.TarInfo(name)
        member.size, member.mode = content.tell(), 0o600
        content.seek(0)
        self._tar.addfile(member, content)

    def close(self) -> None:
        """Write the sums, the last member."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in self._sums.items())
        self.add(_SUMS, lines.encode())
