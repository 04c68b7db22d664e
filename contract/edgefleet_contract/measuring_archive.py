"""A job on its way: a tar of the job and its files, written by a desk, read by a board.

The first member is `job.json`, or `job.dsse.json` where it is signed; then every file once, named
by its SHA-256. The reader checks the job before it reads a file, takes no name from the archive
for a path, and keeps nothing that the job does not name. Spec: [recipe-15.3].
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from edgefleet_contract import canonical
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.measuring import MeasureJob, parse_job, render_job

PLAIN: Final = "job.json"
SIGNED: Final = "job.dsse.json"
_MAX_DOCUMENT: Final = 2 * canonical.MAX_BYTES
_PIECE: Final = 1 << 20


def write_archive(
    job: MeasureJob,
    places: Mapping[Digest, Path],
    to: BinaryIO,
    *,
    signed: bytes | None = None,
) -> None:
    """Write a job and its files; `signed` is the envelope of the same job, where it has one.

    Raises:
        OSError: a file cannot be read, or `to` not written.
    """
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        raw = render_job(job) if signed is None else signed
        _add(tar, PLAIN if signed is None else SIGNED, len(raw), io.BytesIO(raw))
        for digest in sorted(job.blobs):
            with places[digest].open("rb") as file:
                _add(tar, digest, places[digest].stat().st_size, file)


def read_archive(
    source: BinaryIO,
    folder: Path,
    *,
    max_bytes: int,
    admit: Callable[[str, bytes], MeasureJob] | None = None,
) -> MeasureJob:
    """The job in an archive, with its files in `folder`, named by their digests.

    Args:
        source: read to its end, once.
        folder: empty; files are made in it.
        max_bytes: of all files together.
        admit: makes the job of the first member's name and bytes, or refuses it; without it, a job
            is taken unsigned.

    Raises:
        Malformed: it is no such archive, is cut short, or a file is not what the job says.
        EdgefleetError: what `admit` says.
        OSError: a file cannot be written.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            job = _first(tar, admit or take_plain)
            _files(tar, job, folder, max_bytes)
    except (tarfile.TarError, EOFError) as error:
        raise Malformed(f"job: not a whole tar archive: {error}") from None
    return job


def take_plain(name: str, raw: bytes) -> MeasureJob:
    """The job of who has a command line on the board: there is nothing to prove.

    Raises:
        Malformed: it is none.
    """
    if name != PLAIN:
        raise Malformed(f"job: the archive begins with {name[:40]!r}, not with {PLAIN}")
    return parse_job(raw)


def read_folder(folder: Path) -> MeasureJob:
    """The job in a folder that was unpacked before; its files are held against their digests.

    Raises:
        OperatorError: it cannot be read.
        Malformed: it is no job, or a file is not what the job says.
    """
    try:
        job = parse_job((folder / PLAIN).read_bytes())
        for digest in sorted(job.blobs):
            with (folder / digest).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise Malformed(f"job: file {digest[:12]} is another one")
    except OSError as error:
        raise OperatorError(f"cannot read the job in {folder}: {error.strerror}") from None
    return job


def _add(tar: tarfile.TarFile, name: str, size: int, file: BinaryIO) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    tar.addfile(entry, file)


def _first(tar: tarfile.TarFile, admit: Callable[[str, bytes], MeasureJob]) -> MeasureJob:
    entry = tar.next()
    if entry is None or not entry.isreg() or entry.size > _MAX_DOCUMENT:
        raise Malformed("job: the archive does not begin with a job")
    return admit(entry.name, _opened(tar, entry).read())


def _files(tar: tarfile.TarFile, job: MeasureJob, folder: Path, max_bytes: int) -> None:
    missing, left = set(job.blobs), max_bytes
    while (entry := tar.next()) is not None:
        digest = Digest(entry.name)
        if not entry.isreg() or digest not in missing:
            raise Malformed(f"job: the archive holds {entry.name[:80]!r}, which it does not name")
        left -= entry.size
        if left < 0:
            raise Malformed(f"job: its files are larger than {max_bytes} bytes together")
        missing.discard(digest)
        _unpack(_opened(tar, entry), folder / digest, digest)
    if missing:
        raise Malformed(f"job: file {min(missing)[:12]} is not in the archive")


def _unpack(source: BinaryIO, path: Path, digest: Digest) -> None:
    found = hashlib.sha256()
    with path.open("xb") as file:
        while piece := source.read(_PIECE):
            found.update(piece)
            file.write(piece)
    if found.hexdigest() != digest:
        raise Malformed(f"job: file {digest[:12]} is another one")


def _opened(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> BinaryIO:
    file = tar.extractfile(entry)
    assert file is not None  # it is a regular file
    return file  # type: ignore[return-value]  # typeshed has IO[bytes], which it is
