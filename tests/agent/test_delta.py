"""A delta becomes a file of the store, or nothing of it counts and the whole file is fetched."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from backports import zstd

from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.delta import apply_delta, find_zstd
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract import bundle as b
from edgefleet_contract.delta import Code, Kind, Operation
from edgefleet_contract.lanes import Layout
from edgefleet_contract.reasons import Reason
from tests.agent.shelf import serve
from tests.contract.deltas import by_operations, noise, whole

OLD = noise("old", 3 * b.CHUNK_SIZE + 100)
NEW = bytes((byte + 1) % 256 for byte in OLD)
OPERATIONS = (Operation(Code.SUB, 0, len(OLD), Layout.QUADS),)
NEW_DIGEST = b.sha256(NEW)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.put(b.sha256(OLD), OLD)
    return made


def apply(store: Store, delta: bytes) -> Reason | None:
    path = store.part_path(NEW_DIGEST).with_suffix(".delta")
    path.write_bytes(delta)
    failed = apply_delta(store, zstd, path, old=b.sha256(OLD), new=NEW_DIGEST, size=len(NEW))
    assert store.has(NEW_DIGEST) == (failed is None)
    assert not path.exists()
    return failed.reason if failed else None


@pytest.mark.parametrize("kind", Kind)
def test_a_delta_becomes_the_new_file(store: Store, kind: Kind) -> None:
    delta = by_operations(OLD, NEW, OPERATIONS) if kind is Kind.TENSOR else whole(kind, OLD, NEW)
    assert apply(store, delta) is None
    assert store.read(NEW_DIGEST) == NEW
    assert store.path(NEW_DIGEST).stat().st_mode & 0o777 == 0o400
    assert not store.part_path(NEW_DIGEST).exists()


def test_what_makes_other_bytes_never_gets_the_name(store: Store) -> None:
    forged = whole(Kind.ZSTD, OLD, NEW[:-1] + b"?")
    forged = forged.replace(b.sha256(NEW[:-1] + b"?").encode(), NEW_DIGEST.encode())
    assert apply(store, forged) is Reason.DIGEST_MISMATCH


def test_an_old_file_that_is_gone_or_has_rotted_makes_nothing(store: Store) -> None:
    delta = by_operations(OLD, NEW, OPERATIONS)
    path = store.path(b.sha256(OLD))
    path.chmod(0o600)
    path.write_bytes(OLD[:-1] + b"?")
    assert apply(store, delta) is Reason.DIGEST_MISMATCH
    path.write_bytes(OLD[:-1])
    assert apply(store, delta) is Reason.MALFORMED
    path.unlink()
    assert apply(store, delta) is Reason.STORAGE_FAILED


def test_a_delta_that_is_none_is_a_value_and_no_crash(store: Store) -> None:
    assert apply(store, b"<html>404</html>") is Reason.MALFORMED


def test_a_whole_transfer_goes_on_from_what_a_broken_delta_made(store: Store) -> None:
    whole_delta = whole(Kind.ZSTD, OLD, NEW[: 2 * b.CHUNK_SIZE])
    part = b.sha256(NEW[: 2 * b.CHUNK_SIZE]).encode()
    short = whole_delta.replace(part, NEW_DIGEST.encode())
    short = short.replace(b'"new_size":131072', b'"new_size":%d' % len(NEW))
    assert apply(store, short) is Reason.MALFORMED
    with serve() as shelf:
        shelf.put(NEW)
        transferred = Mover(store, (HttpChunks(),)).fetch_file(
            NEW_DIGEST,
            size=len(NEW),
            chunk_list_sha256=shelf.put(b.chunk_list(NEW)),
            sources=(shelf.url,),
            what="model",
            progress=lambda done: None,
        )
    assert store.read(NEW_DIGEST) == NEW
    assert transferred == len(NEW) - 2 * b.CHUNK_SIZE


def test_what_an_earlier_transfer_left_is_no_part_of_the_file(store: Store) -> None:
    store.part_path(NEW_DIGEST).write_bytes(b"!" * 2 * len(NEW))
    assert apply(store, by_operations(OLD, NEW, OPERATIONS)) is None
    assert store.read(NEW_DIGEST) == NEW


class FullDisk(FileSystem):
    def write(self, file: BinaryIO, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_without_room_is_a_value_and_no_crash(store: Store, tmp_path: Path) -> None:
    full = Store(tmp_path / "store", FullDisk())
    assert apply(full, by_operations(OLD, NEW, OPERATIONS)) is Reason.NO_SPACE


def test_a_board_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_zstd() is zstd
    monkeypatch.delattr("backports.zstd")
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    assert find_zstd() is None
