"""The shelf on a disk, and the same in an object store (a real S3 server)."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.adapters.s3_shelf import S3Shelf
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.ports import Shelf

RAW = os.urandom(300_000)
DIGEST = sha256(RAW)


@pytest.fixture
def on_disk(tmp_path: Path) -> FileShelf:
    found = FileShelf(tmp_path / "blobs")
    found.prepare()
    return found


@pytest.fixture(params=["disk", "s3"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    """An empty shelf of each kind."""
    if request.param == "disk":
        return request.getfixturevalue("on_disk")  # type: ignore[no-any-return]
    found = S3Shelf(request.getfixturevalue("bucket"))
    found.prepare()
    return found


class Broken:
    def read(self, _size: int, /) -> bytes:
        raise ConnectionResetError("gone")


def leftovers(shelf: FileShelf) -> list[Path]:
    return [path for path in shelf.path(DIGEST).parent.parent.rglob("*") if path.is_file()]


def test_a_blob_reads_back_whole_and_in_part(shelf: Shelf) -> None:
    assert shelf.put(DIGEST, io.BytesIO(RAW), max_bytes=len(RAW)) == len(RAW)
    assert shelf.has(DIGEST)
    assert shelf.size(DIGEST) == len(RAW)
    assert b"".join(shelf.read(DIGEST)) == RAW
    assert b"".join(shelf.read(DIGEST, start=1000, length=5)) == RAW[1000:1005]
    assert b"".join(shelf.read(DIGEST, start=299_990)) == RAW[299_990:]
    assert b"".join(shelf.read(DIGEST, start=299_990, length=50)) == RAW[299_990:]
    assert b"".join(shelf.read(DIGEST, start=300_000)) == b""
    assert list(shelf.digests()) == [DIGEST]


def test_a_blob_lies_under_its_digest_and_is_read_only(on_disk: FileShelf) -> None:
    on_disk.put(DIGEST, io.BytesIO(RAW), max_bytes=len(RAW))
    (path,) = leftovers(on_disk)
    assert (path.name, path.parent.name) == (DIGEST, DIGEST[:2])
    assert path.stat().st_mode & 0o777 == 0o444


def test_bytes_of_another_digest_never_become_visible(shelf: Shelf) -> None:
    with pytest.raises(Malformed) as refused:
        shelf.put(DIGEST, io.BytesIO(RAW[:-1] + b"x"), max_bytes=len(RAW))
    assert refused.value.reason is Reason.DIGEST_MISMATCH
    assert not shelf.has(DIGEST)
    assert list(shelf.digests()) == []


def test_more_bytes_than_were_announced_are_refused_early(shelf: Shelf) -> None:
    endless = io.BytesIO(bytes(50_000_000))
    with pytest.raises(Malformed) as refused:
        shelf.put(DIGEST, endless, max_bytes=1000)
    assert refused.value.reason is Reason.TOO_LARGE
    assert endless.tell() < 1_000_000
    assert list(shelf.digests()) == []


def test_an_upload_that_breaks_off_leaves_nothing(shelf: Shelf) -> None:
    with pytest.raises(OperatorError):
        shelf.put(DIGEST, Broken(), max_bytes=10)
    assert list(shelf.digests()) == []


def test_what_is_refused_leaves_no_file(on_disk: FileShelf) -> None:
    for source in (io.BytesIO(RAW[:-1] + b"x"), io.BytesIO(RAW + b"x"), Broken()):
        with pytest.raises((Malformed, OperatorError)):
            on_disk.put(DIGEST, source, max_bytes=len(RAW))
    assert leftovers(on_disk) == []


def test_what_a_crash_left_is_removed_on_the_next_start(on_disk: FileShelf, tmp_path: Path) -> None:
    part = on_disk.path(DIGEST).with_name(".part-0123")
    part.parent.mkdir()
    part.write_bytes(b"half")
    assert list(on_disk.digests()) == []
    FileShelf(tmp_path / "blobs").prepare()
    assert leftovers(on_disk) == []


def test_a_blob_that_is_not_there_is_not_found(shelf: Shelf) -> None:
    assert shelf.size(Digest("00" * 32)) is None
    with pytest.raises(NotFound):
        shelf.read(Digest("00" * 32))


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_said_at_the_start() -> None:
    with pytest.raises(OperatorError, match="bucket 'nowhere'") as refused:
        S3Shelf("s3://nowhere/x").prepare()
    assert "AWS_ENDPOINT_URL_S3" in refused.value.hint


@pytest.mark.parametrize("address", ["s3:/bucket", "https://bucket", "s3://", "s3://b/p?x=1"])
def test_an_address_that_is_not_one_is_refused(address: str) -> None:
    with pytest.raises(OperatorError, match="s3://bucket/prefix"):
        S3Shelf(address)
