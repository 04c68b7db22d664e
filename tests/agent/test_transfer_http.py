from __future__ import annotations

import random
import socket
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.ports import Canceled
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract import bundle as b
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason
from tests.agent.shelf import Shelf, serve

RAW = random.Random(7).randbytes(10 * b.CHUNK_SIZE + 123)
CHUNKS = b.chunk_list(RAW)


@pytest.fixture
def shelf(shelf: Shelf) -> Shelf:
    shelf.put(RAW)
    shelf.put(CHUNKS)
    return shelf


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def fetch(store: Store, *sources: str) -> int:
    fetcher = Mover(store, [HttpChunks()])
    return fetcher.fetch_file(
        b.sha256(RAW),
        size=len(RAW),
        chunk_list_sha256=b.sha256(CHUNKS),
        sources=sources,
        what="model",
        progress=lambda done: None,
    )


def test_a_file_arrives_whole_and_only_once(store: Store, shelf: Shelf) -> None:
    assert fetch(store, shelf.url) == len(RAW)
    assert store.read(b.sha256(RAW)) == RAW
    assert fetch(store, shelf.url) == 0


def test_a_broken_transfer_resumes_where_it_broke(store: Store, shelf: Shelf) -> None:
    shelf.cut_after = 2 * b.CHUNK_SIZE + 5
    with pytest.raises(TransientError):
        fetch(store, shelf.url)
    begins = [begin // b.CHUNK_SIZE for digest, begin in shelf.requests if digest == b.sha256(RAW)]
    assert begins == [0, 2, 4]
    shelf.cut_after = None
    assert fetch(store, shelf.url) == len(RAW) - 6 * b.CHUNK_SIZE
    assert store.read(b.sha256(RAW)) == RAW


def test_a_new_process_resumes_from_what_is_good_on_disk(store: Store, shelf: Shelf) -> None:
    part = store.part_path(b.sha256(RAW))
    spoilt = bytearray(RAW[: 6 * b.CHUNK_SIZE])
    spoilt[3 * b.CHUNK_SIZE] ^= 1
    part.write_bytes(spoilt)
    assert fetch(store, shelf.url) == len(RAW) - 5 * b.CHUNK_SIZE
    assert store.read(b.sha256(RAW)) == RAW


def test_a_server_without_ranges_is_read_from_the_start(store: Store, shelf: Shelf) -> None:
    store.part_path(b.sha256(RAW)).write_bytes(RAW[: 2 * b.CHUNK_SIZE])
    shelf.ranges = False
    assert fetch(store, shelf.url) == len(RAW)
    assert store.read(b.sha256(RAW)) == RAW


def test_a_flipped_bit_is_dropped_before_it_reaches_the_store(store: Store, shelf: Shelf) -> None:
    bad = bytearray(RAW)
    bad[5 * b.CHUNK_SIZE + 9] ^= 1
    shelf.blobs[b.sha256(RAW)] = bytes(bad)
    with pytest.raises(PeerError) as caught:
        fetch(store, shelf.url)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert not store.has(b.sha256(RAW))
    assert store.part_path(b.sha256(RAW)).read_bytes() == RAW[: 5 * b.CHUNK_SIZE]


def test_another_source_makes_good_for_a_bad_one(store: Store, shelf: Shelf) -> None:
    with serve() as bad:
        spoilt = bytearray(RAW)
        spoilt[2 * b.CHUNK_SIZE] ^= 1
        bad.blobs = {b.sha256(RAW): bytes(spoilt), b.sha256(CHUNKS): CHUNKS}
        fetch(store, bad.url, shelf.url)
    assert store.read(b.sha256(RAW)) == RAW


def test_a_lying_chunk_list_is_refused(store: Store, shelf: Shelf) -> None:
    shelf.blobs[b.sha256(CHUNKS)] = CHUNKS[:-32] + b"\0" * 32
    with pytest.raises(PeerError) as caught:
        fetch(store, shelf.url)
    assert caught.value.reason is Reason.DIGEST_MISMATCH


def test_a_blob_that_nobody_has_fails_at_once(store: Store, shelf: Shelf) -> None:
    del shelf.blobs[b.sha256(RAW)]
    with pytest.raises(PeerError) as caught:
        fetch(store, shelf.url)
    assert caught.value.reason is Reason.NOT_FOUND
    assert [digest for digest, _ in shelf.requests].count(b.sha256(RAW)) == 1


def test_an_endless_body_is_cut_off(store: Store, shelf: Shelf) -> None:
    shelf.endless = True
    with pytest.raises(PeerError) as caught:
        fetch(store, shelf.url)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("status", [500, 503, 301])
def test_a_server_in_trouble_is_tried_again_later(store: Store, shelf: Shelf, status: int) -> None:
    shelf.status = status
    with pytest.raises(TransientError):
        fetch(store, shelf.url)


def test_nobody_there_is_tried_again_later(store: Store) -> None:
    with pytest.raises(TransientError):
        fetch(store, "http://127.0.0.1:1")


def test_a_canceled_transfer_ends_and_keeps_what_it_has(store: Store, shelf: Shelf) -> None:
    fetcher = Mover(store, [HttpChunks()])
    with pytest.raises(Canceled):
        fetcher.fetch_file(
            b.sha256(RAW),
            size=len(RAW),
            chunk_list_sha256=b.sha256(CHUNKS),
            sources=(shelf.url,),
            what="model",
            progress=lambda done: fetcher.cancel() if done > 3 * b.CHUNK_SIZE else None,
        )
    assert store.part_path(b.sha256(RAW)).stat().st_size >= 3 * b.CHUNK_SIZE
    assert fetch(store, shelf.url) < len(RAW)


class Watched(weakref.WeakSet[socket.socket]):
    """Open sockets that nobody may go through while one is added: Python does not allow it."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._lock = lock

    def __iter__(self) -> Iterator[socket.socket]:
        assert self._lock.locked()
        return super().__iter__()

    def add(self, item: socket.socket) -> None:
        assert self._lock.locked()
        super().add(item)


def test_a_transfer_may_be_ended_while_it_connects(store: Store, shelf: Shelf) -> None:
    chunks = HttpChunks()
    adapter = chunks._session._adapter
    adapter._sockets = Watched(adapter._opening)
    table = b.sha256(CHUNKS)
    mover = Mover(store, [chunks])
    assert mover.fetch(table, max_bytes=len(CHUNKS), sources=(shelf.url,), what="t") == CHUNKS
    chunks.end()  # goes through them; what is watched asserts
