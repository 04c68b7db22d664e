"""The shelf on a disk."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.errors import NotFound

RAW = os.urandom(300_000)
DIGEST = sha256(RAW)


@pytest.fixture
def shelf(tmp_path: Path) -> FileShelf:
    found = FileShelf(tmp_path / "blobs")
    found.prepare()
    return found


def leftovers(shelf: FileShelf) -> list[Path]:
    return [path for path in shelf.path(DIGEST).parent.parent.rglob("*") if path.is_file()]


def test_a_blob_reads_back_whole_and_in_part(shelf: FileShelf) -> None:
    assert shelf.put(DIGEST, io.BytesIO(RAW), max_bytes=len(RAW)) == len(RAW)
    assert shelf.has(DIGEST)
    assert shelf.size(DIGEST) == len(RAW)
    assert b"".join(shelf.read(DIGEST)) == RAW
    assert b"".join(shelf.read(DIGEST, start=1000, length=5)) == RAW[1000:1005]
    assert b"".join(shelf.read(DIGEST, start=299_990)) == RAW[299_990:]


def test_a_blob_lies_under_its_digest_and_is_read_only(shelf: FileShelf) -> None:
    shelf.put(DIGEST, io.BytesIO(RAW), max_bytes=len(RAW))
    (path,) = leftovers(shelf)
    assert (path.name, path.parent.name) == (DIGEST, DIGEST[:2])
    assert path.stat().st_mode & 0o777 == 0o444


def test_bytes_of_another_digest_never_become_visible(shelf: FileShelf) -> None:
    with pytest.raises(Malformed) as refused:
        shelf.put(DIGEST, io.BytesIO(RAW[:-1] + b"x"), max_bytes=len(RAW))
    assert refused.value.reason is Reason.DIGEST_MISMATCH
    assert not shelf.has(DIGEST)
    assert leftovers(shelf) == []


def test_more_bytes_than_were_announced_are_refused_early(shelf: FileShelf) -> None:
    endless = io.BytesIO(bytes(50_000_000))
    with pytest.raises(Malformed) as refused:
        shelf.put(DIGEST, endless, max_bytes=1000)
    assert refused.value.reason is Reason.TOO_LARGE
    assert endless.tell() < 1_000_000
    assert leftovers(shelf) == []


def test_an_upload_that_breaks_off_leaves_nothing(shelf: FileShelf) -> None:
    class Broken:
        def read(self, _size: int, /) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(OperatorError):
        shelf.put(DIGEST, Broken(), max_bytes=10)
    assert leftovers(shelf) == []


def test_what_a_crash_left_is_removed_on_the_next_start(shelf: FileShelf, tmp_path: Path) -> None:
    part = shelf.path(DIGEST).with_name(".part-0123")
    part.parent.mkdir()
    part.write_bytes(b"half")
    FileShelf(tmp_path / "blobs").prepare()
    assert leftovers(shelf) == []


def test_a_blob_that_is_not_there_is_not_found(shelf: FileShelf) -> None:
    assert shelf.size(Digest("00" * 32)) is None
    with pytest.raises(NotFound):
        shelf.read(Digest("00" * 32))
