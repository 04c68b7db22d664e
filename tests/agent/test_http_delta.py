from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_agent.adapters.http_delta import TRIES, HttpDeltas
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.ports import Canceled
from edgefleet_contract import bundle as b
from tests.agent.shelf import Shelf, serve
from tests.contract.deltas import noise

OLD, NEW = b.sha256(b"old"), b.sha256(b"new")
DELTA = noise("a delta", 300_000)
SIZE = 400_000


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with serve() as running:
        running.blobs[f"{NEW}/delta/{OLD}"] = DELTA
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def fetch(store: Store, *sources: str, size: int = SIZE) -> bytes | None:
    path = HttpDeltas(store, block_s=5).fetch_delta(OLD, NEW, size=size, sources=sources)
    return path.read_bytes() if path else None


def test_a_delta_arrives(store: Store, shelf: Shelf) -> None:
    assert fetch(store, shelf.url + "/") == DELTA


def test_a_source_that_has_none_is_passed_over(store: Store, shelf: Shelf) -> None:
    with serve() as other:
        assert fetch(store, other.url, shelf.url) == DELTA
        assert len(other.requests) == 1
        assert fetch(store, other.url) is None


def test_a_broken_transfer_goes_on_where_it_broke(store: Store, shelf: Shelf) -> None:
    shelf.cut_after = 200_000
    assert fetch(store, shelf.url) == DELTA
    assert [begin for _, begin in shelf.requests] == [0, pytest.approx(200_000, abs=b.CHUNK_SIZE)]


def test_a_source_without_ranges_begins_anew(store: Store, shelf: Shelf) -> None:
    shelf.cut_after, shelf.ranges = 200_000, False
    assert fetch(store, shelf.url) is None
    shelf.cut_after = None
    assert fetch(store, shelf.url) == DELTA


def test_a_source_that_always_breaks_off_is_given_up(store: Store, shelf: Shelf) -> None:
    shelf.cut_after = 10
    assert fetch(store, shelf.url) is None
    assert len(shelf.requests) == TRIES
    assert not list(store.part_path(NEW).parent.iterdir())


@pytest.mark.parametrize("status", [301, 500, 503])
def test_a_source_in_trouble_means_no_delta(store: Store, shelf: Shelf, status: int) -> None:
    shelf.status = status
    assert fetch(store, shelf.url) is None


def test_nobody_there_means_no_delta(store: Store) -> None:
    assert fetch(store, "http://127.0.0.1:1") is None


def test_what_is_too_long_to_be_worth_it_is_cut_off(store: Store, shelf: Shelf) -> None:
    assert fetch(store, shelf.url, size=len(DELTA)) is None
    shelf.endless = True
    assert fetch(store, shelf.url) is None
    assert not list(store.part_path(NEW).parent.iterdir())


def test_a_canceled_transfer_ends(store: Store, shelf: Shelf) -> None:
    deltas = HttpDeltas(store)
    deltas.cancel()
    with pytest.raises(Canceled):
        deltas.fetch_delta(OLD, NEW, size=SIZE, sources=(shelf.url,))
    deltas.resume()
    assert deltas.fetch_delta(OLD, NEW, size=SIZE, sources=(shelf.url,)) is not None
