"""Deltas take the roads of blobs: resumed, capped, counted; trouble means that there is none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgefleet_agent.adapters.folder_chunks import FolderChunks
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.ports import Canceled, Moved
from edgefleet_agent.transfer import mover as module
from edgefleet_agent.transfer.mover import TRIES, Mover
from edgefleet_agent.transfer.pace import Pace
from edgefleet_contract import bundle as b
from tests.agent.shelf import Shelf, serve
from tests.contract.deltas import noise

OLD = b.sha256(b"old")
WHOLE = noise("whole", 400_000)
NEW = b.sha256(WHOLE)
DELTA = noise("a delta", 300_000)
NAME = f"{NEW}/delta/{OLD}"


@pytest.fixture
def shelf(shelf: Shelf) -> Shelf:
    shelf.blobs[NAME] = DELTA
    return shelf


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def mover(store: Store) -> Mover:
    return Mover(store, [HttpChunks(block_s=5)])


def fetch(mover: Mover, *sources: str, size: int = len(WHOLE)) -> bytes | None:
    path = mover.fetch_delta(
        OLD, NEW, size=size, sources=sources, what="delta", progress=lambda _: None
    )
    return path.read_bytes() if path else None


def whole(mover: Mover, *sources: str) -> int:
    return mover.fetch_file(
        NEW,
        size=len(WHOLE),
        chunk_list_sha256=b.sha256(b.chunk_list(WHOLE)),
        sources=sources,
        what="model",
        progress=lambda _: None,
    )


def nothing_is_left(store: Store) -> bool:
    return not list(store.part_path(NEW).parent.iterdir())


def test_a_delta_arrives_and_is_counted(mover: Mover, shelf: Shelf) -> None:
    assert fetch(mover, shelf.url + "/") == DELTA
    moved = Moved({"http": len(DELTA)}, len(DELTA), len(DELTA))
    assert mover.take_moved() == moved
    assert mover.take_moved() == Moved({}, 0)


def test_a_source_that_has_none_costs_a_request_and_is_asked_first_for_the_file(
    mover: Mover, store: Store, shelf: Shelf
) -> None:
    shelf.put(WHOLE)
    shelf.put(b.chunk_list(WHOLE))
    with serve() as other:
        other.blobs |= shelf.blobs
        del other.blobs[NAME]
        assert fetch(mover, other.url) is None
        assert other.requests == [(NAME, 0)]
        assert nothing_is_left(store)
        assert fetch(mover, other.url, shelf.url) == DELTA
        whole(mover, other.url, shelf.url)
        assert shelf.requests == [(NAME, 0)]  # the file came from the other one


def test_a_broken_transfer_goes_on_where_it_broke(mover: Mover, shelf: Shelf) -> None:
    shelf.cut_after = 200_000
    assert fetch(mover, shelf.url) == DELTA
    assert [begin for _, begin in shelf.requests] == [0, pytest.approx(200_000, abs=b.CHUNK_SIZE)]
    assert mover.take_moved().deltas == len(DELTA)


def test_a_later_call_goes_on_and_one_that_has_it_all_learns_that(
    mover: Mover, store: Store, shelf: Shelf
) -> None:
    store.delta_path(OLD, NEW).write_bytes(DELTA[:100_000])
    assert fetch(mover, shelf.url) == DELTA
    assert fetch(mover, shelf.url) == DELTA
    assert [begin for _, begin in shelf.requests] == [100_000, len(DELTA)]


def test_a_source_without_ranges_gives_no_byte_twice(
    mover: Mover, store: Store, shelf: Shelf
) -> None:
    shelf.ranges = False
    store.delta_path(OLD, NEW).write_bytes(DELTA[:100_000])
    assert fetch(mover, shelf.url) == DELTA


def test_a_source_that_gives_nothing_is_given_up_at_once_and_one_that_breaks_off_later(
    mover: Mover, shelf: Shelf
) -> None:
    shelf.cut_after = 0
    assert fetch(mover, shelf.url) is None
    assert len(shelf.requests) == 1
    shelf.cut_after = b.CHUNK_SIZE + 10
    assert fetch(mover, shelf.url) is None
    assert len(shelf.requests) == 1 + TRIES
    assert fetch(mover, shelf.url) == DELTA  # what came is kept


@pytest.mark.parametrize("status", [301, 416, 500, 503])
def test_a_source_in_trouble_means_no_delta(mover: Mover, shelf: Shelf, status: int) -> None:
    shelf.status = status
    assert fetch(mover, shelf.url) is None
    assert len(shelf.requests) == 1


def test_nobody_there_means_no_delta(mover: Mover) -> None:
    assert fetch(mover, "http://127.0.0.1:1") is None
    assert fetch(mover) is None


def test_one_that_is_being_made_is_waited_for(
    mover: Mover, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.making[NAME] = 2
    assert fetch(mover, shelf.url) == DELTA
    assert len(shelf.requests) == 3
    shelf.making[NAME] = 9
    monkeypatch.setattr(module, "PATIENCE_S", 2.5)
    mover.take_moved()
    assert fetch(mover, shelf.url) is None
    assert len(shelf.requests) == 3 + 3


def test_for_a_small_file_nobody_waits_and_the_file_itself_may_be_asked_for_at_once(
    mover: Mover, store: Store, shelf: Shelf
) -> None:
    shelf.put(WHOLE)
    shelf.put(b.chunk_list(WHOLE))
    shelf.making[NAME] = 1
    assert fetch(mover, shelf.url, size=200_000) is None
    assert whole(mover, shelf.url) == len(WHOLE)
    assert len(shelf.requests) == 3


def test_what_is_too_long_to_be_worth_it_is_cut_off(
    mover: Mover, store: Store, shelf: Shelf
) -> None:
    assert fetch(mover, shelf.url, size=len(DELTA)) is None
    shelf.endless = True
    assert fetch(mover, shelf.url) is None
    assert nothing_is_left(store)


def test_a_file_on_a_stick_needs_no_delta(tmp_path: Path, store: Store, shelf: Shelf) -> None:
    (tmp_path / "blobs").mkdir()
    mover = Mover(store, [FolderChunks(tmp_path, (".",)), HttpChunks()])
    assert fetch(mover, shelf.url) == DELTA
    (tmp_path / "blobs" / NEW).write_bytes(WHOLE)
    assert fetch(mover, shelf.url) is None
    assert len(shelf.requests) == 1


def test_an_allowance_and_a_pace_are_for_deltas_too(store: Store, shelf: Shelf) -> None:
    mover = Mover(store, [HttpChunks()], pace=Pace(100_000))
    mover.allow(150_000)
    began = time.monotonic()
    assert fetch(mover, shelf.url) is None
    assert time.monotonic() - began > 0.5
    spent = mover.take_moved()
    assert 150_000 <= spent.uplink < 150_000 + 2 * b.CHUNK_SIZE
    mover.allow(None)
    assert fetch(mover, shelf.url) == DELTA
    assert spent.uplink + mover.take_moved().uplink == len(DELTA)


def test_a_canceled_transfer_ends(mover: Mover, shelf: Shelf) -> None:
    mover.cancel()
    with pytest.raises(Canceled):
        fetch(mover, shelf.url)
    mover.resume()
    assert fetch(mover, shelf.url) is not None
