"""Which road a blob takes, and when it changes: sticks, mirrors, caps, allowances, back-off."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent import config
from edgefleet_agent.adapters.folder_chunks import FolderChunks
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.ports import AllowanceSpent
from edgefleet_agent.transfer.mover import Mover
from edgefleet_agent.transfer.pace import HourCap, Pace
from edgefleet_agent.transfer.window import FIRST_WAIT_S, WAITS_S, Window
from edgefleet_contract import bundle as b
from edgefleet_contract.errors import OperatorError, PeerError, TransientError
from edgefleet_contract.order_policy import SLOWEST
from edgefleet_contract.reasons import Reason
from tests.agent.shelf import Shelf, serve

RAW = random.Random(8).randbytes(10 * b.CHUNK_SIZE + 123)
CHUNKS = b.chunk_list(RAW)
DIGEST = b.sha256(RAW)


@pytest.fixture
def shelf(shelf: Shelf) -> Shelf:
    shelf.put(RAW)
    shelf.put(CHUNKS)
    return shelf


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fetch(mover: Mover, *sources: str) -> int:
    return mover.fetch_file(
        DIGEST,
        size=len(RAW),
        chunk_list_sha256=b.sha256(CHUNKS),
        sources=sources,
        what="model",
        progress=lambda done: None,
    )


def stick(folder: Path, raw: bytes = RAW, *, as_shelf: bool = False) -> Path:
    """A folder with the blob, or something else under its name, and its chunk list."""
    for digest, blob in ((DIGEST, raw), (b.sha256(CHUNKS), CHUNKS)):
        place = folder / "blobs" / (digest[:2] if as_shelf else "")
        place.mkdir(parents=True, exist_ok=True)
        (place / digest).write_bytes(blob)
    return folder


@pytest.mark.parametrize("as_shelf", [False, True])
def test_a_stick_is_all_that_a_device_needs(tmp_path: Path, store: Store, as_shelf: bool) -> None:
    mover = Mover(store, [FolderChunks(tmp_path, ("media/*",)), HttpChunks()])
    with pytest.raises(TransientError):
        fetch(mover)  # nothing is mounted
    stick(tmp_path / "media" / "usb", as_shelf=as_shelf)
    assert fetch(mover) == len(RAW)
    assert store.read(DIGEST) == RAW
    assert mover.take_moved().ways == {"folder": len(RAW) + len(CHUNKS)}


def test_a_stick_with_wrong_bytes_condemns_nothing_and_helps_as_far_as_it_is_right(
    tmp_path: Path, store: Store, shelf: Shelf
) -> None:
    spoilt = bytearray(RAW)
    spoilt[4 * b.CHUNK_SIZE] ^= 1
    stick(tmp_path / "stick", bytes(spoilt))
    mover = Mover(store, [FolderChunks(tmp_path, ("stick",)), HttpChunks()])
    shelf.status = 500
    with pytest.raises(TransientError):
        fetch(mover, shelf.url)
    shelf.status = 200
    fetch(mover, shelf.url)
    assert store.read(DIGEST) == RAW
    assert mover.take_moved().ways["http"] == len(RAW) - 4 * b.CHUNK_SIZE


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_a_stick_cannot_offer_anything_but_plain_files(
    tmp_path: Path, store: Store, kind: str
) -> None:
    folder = stick(tmp_path / "stick") / "blobs"
    (folder / DIGEST).unlink()
    if kind == "pipe":
        os.mkfifo(folder / DIGEST)
    elif kind == "link":
        (folder / DIGEST).symlink_to("/dev/zero")
    else:
        (folder / DIGEST).mkdir()
    with pytest.raises((PeerError, TransientError)):
        fetch(Mover(store, [FolderChunks(tmp_path, ("stick",))]))
    assert not store.has(DIGEST)


def test_a_mirror_is_asked_first_and_the_order_s_source_for_what_it_lacks(
    store: Store, shelf: Shelf
) -> None:
    with serve() as mirror:
        mirror.put(CHUNKS)
        fetch(Mover(store, [HttpChunks(mirrors=(mirror.url,)), HttpChunks()]), shelf.url)
        assert [digest for digest, _ in mirror.requests] == [b.sha256(CHUNKS), DIGEST]
    assert [digest for digest, _ in shelf.requests] == [DIGEST]


def test_a_transfer_goes_on_elsewhere_at_the_chunk_where_it_broke(
    tmp_path: Path, store: Store, shelf: Shelf
) -> None:
    shelf.cut_after = 3 * b.CHUNK_SIZE + 99
    mover = Mover(store, [HttpChunks(), FolderChunks(tmp_path, ("stick",))])
    stick(tmp_path / "stick")
    fetch(mover, shelf.url)
    moved = mover.take_moved().ways
    assert store.read(DIGEST) == RAW
    assert moved["folder"] == len(RAW) - 3 * b.CHUNK_SIZE
    assert len(shelf.requests) == 2  # the chunk list, and the file once


def test_a_source_that_failed_is_asked_last_for_a_while(store: Store, shelf: Shelf) -> None:
    mover = Mover(store, [HttpChunks()])
    with serve() as dead:
        dead.blobs, dead.status = dict(shelf.blobs), 500
        fetch(mover, dead.url, shelf.url)
        assert len(dead.requests) == 1  # for the chunk list; then the other one was first


@pytest.mark.parametrize("status", [429, 503])
def test_a_source_that_says_when_to_come_back_is_left_alone_until_then(
    store: Store, shelf: Shelf, status: int
) -> None:
    mover = Mover(store, [HttpChunks()])
    shelf.status, shelf.retry_after = status, "120"
    for _ in range(2):
        with pytest.raises(TransientError) as caught:
            fetch(mover, shelf.url)
        assert 110 < (caught.value.retry_after_s or 0) <= 120
    assert len(shelf.requests) == 1


@pytest.mark.parametrize(
    ("text", "wait_s"), [("99999999", 3600), ("-5", None), ("soon", None), ("²", None)]
)
def test_no_source_can_keep_a_device_waiting_for_ever(
    store: Store, shelf: Shelf, text: str, wait_s: float | None
) -> None:
    shelf.status, shelf.retry_after = 503, text
    with pytest.raises(TransientError) as caught:
        fetch(Mover(store, [HttpChunks()]), shelf.url)
    assert caught.value.retry_after_s == wait_s


def test_an_allowance_ends_a_transfer_and_what_came_is_kept(store: Store, shelf: Shelf) -> None:
    mover = Mover(store, [HttpChunks()])
    mover.allow(4 * b.CHUNK_SIZE)
    with pytest.raises(AllowanceSpent):
        fetch(mover, shelf.url)
    first = mover.take_moved().ways["http"]
    assert 4 * b.CHUNK_SIZE <= first <= 5 * b.CHUNK_SIZE
    mover.allow(None)
    fetch(mover, shelf.url)
    assert first + mover.take_moved().ways["http"] == len(RAW) + 2 * len(CHUNKS)


def test_what_does_not_cross_the_uplink_costs_no_allowance(
    tmp_path: Path, store: Store, shelf: Shelf
) -> None:
    mover = Mover(store, [HttpChunks(), FolderChunks(tmp_path, ("stick",))])
    stick(tmp_path / "stick")
    mover.allow(0)
    assert fetch(mover, shelf.url) == len(RAW)
    assert shelf.requests == []


def test_a_cap_is_kept(store: Store, shelf: Shelf) -> None:
    mover = Mover(store, [HttpChunks()], pace=Pace(400_000))
    began = time.monotonic()
    fetch(mover, shelf.url)
    took = time.monotonic() - began
    assert (len(RAW) + len(CHUNKS) - 400_000) / 400_000 <= took < 2.5


def test_an_order_s_cap_holds_for_its_download_and_not_for_the_next(
    store: Store, shelf: Shelf
) -> None:
    mover = Mover(store, [HttpChunks()], pace=Pace(10_000_000))
    mover.allow(None, max_bytes_per_s=400_000)
    began = time.monotonic()
    fetch(mover, shelf.url)
    took = time.monotonic() - began
    assert (len(RAW) + len(CHUNKS) - 400_000) / 400_000 <= took < 2.5
    other = shelf.put(RAW[:-1])
    table = b.chunk_list(RAW[:-1])
    shelf.put(table)
    mover.allow(None)
    began = time.monotonic()
    mover.fetch_file(
        other,
        size=len(RAW) - 1,
        chunk_list_sha256=b.sha256(table),
        sources=(shelf.url,),
        what="model",
        progress=lambda done: None,
    )
    assert time.monotonic() - began < took


@given(
    st.integers(SLOWEST, 10**6),
    st.lists(st.tuples(st.integers(1, 65_536), st.floats(0, 3)), min_size=1, max_size=50),
)
def test_whoever_waits_as_told_stays_below_the_cap(
    cap: int, blocks: list[tuple[int, float]]
) -> None:
    pace = Pace()
    pace.lower(cap)
    now, arrived, first = 7.0, 0, None
    for size, after in blocks:
        now += after
        arrived += size
        first = now if first is None else first
        now += pace.pay(size, now=now, hour=3)
        assert arrived <= cap * (now - first + 1) * 1.000001


def test_the_lower_cap_counts_and_one_that_is_too_low_is_lifted() -> None:
    pace = Pace(5000)
    pace.lower(9000)
    assert pace.cap(3) == 5000
    pace.lower(2000)
    assert pace.cap(3) == 2000
    pace.lower(5)  # of a control room that did not look
    assert pace.cap(3) == SLOWEST
    pace.lower(0)
    assert pace.cap(3) == 5000


def test_hours_of_the_day_have_caps_of_their_own() -> None:
    pace = Pace(5000, (HourCap(22, 6, 0), HourCap(8, 18, 2000)))
    assert [pace.cap(hour) for hour in (23, 3, 6, 8, 17, 18)] == [0, 0, 5000, 2000, 2000, 5000]
    assert pace.pay(10**9, now=0.0, hour=23) == 0
    assert pace.pay(2000, now=1.0, hour=8) == 0  # a second's worth at once
    assert pace.pay(2000, now=1.0, hour=8) == 1.0
    assert pace.pay(1000, now=3.0, hour=8) == 0


@pytest.mark.parametrize("args", [(24, 2, 0), (3, 3, 0), (1, 25, 0), (1, 2, 100), (-1, 2, 0)])
def test_hours_that_are_none_are_refused(args: tuple[int, int, int]) -> None:
    with pytest.raises(OperatorError):
        HourCap(*args)


def test_the_window_halves_on_loss_and_grows_by_one_a_window() -> None:
    window = Window(8)
    assert (window.size, window.wait_s) == (8, FIRST_WAIT_S)
    window.lost()
    window.lost()
    assert (window.size, window.wait_s) == (2, 4 * FIRST_WAIT_S)
    sizes = []
    for _ in range(2 + 3 + 4):
        window.came(0.05)
        sizes.append(window.size)
    assert sizes == [2, 3, 3, 3, 4, 4, 4, 4, 5]
    assert window.wait_s == WAITS_S[0]
    for _ in range(20):
        window.lost()
    assert (window.size, window.wait_s) == (1, WAITS_S[1])


def test_a_guess_lengthens_the_first_wait_and_is_not_heard_after_a_measurement() -> None:
    window = Window(8)
    window.guess(0.001)
    assert window.wait_s == FIRST_WAIT_S
    window.guess(5.0)
    assert window.wait_s == 15.0
    window.guess(50.0)
    assert window.wait_s == WAITS_S[1]
    window.came(0.05)
    window.guess(50.0)
    assert window.wait_s == WAITS_S[0]


def test_a_blob_that_only_the_fleet_lacks_fails_at_once(
    tmp_path: Path, store: Store, shelf: Shelf
) -> None:
    del shelf.blobs[DIGEST]
    mover = Mover(store, [FolderChunks(tmp_path, ("stick",)), HttpChunks()])
    with pytest.raises(PeerError) as caught:
        fetch(mover, shelf.url)
    assert caught.value.reason is Reason.NOT_FOUND


GUIDE = Path(__file__).parents[2] / "docs/guides/transfers.md"


def test_the_guide_shows_the_defaults_and_settings_that_are_taken(tmp_path: Path) -> None:
    defaults, night = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    for text in (defaults, night):
        (tmp_path / "agent.toml").write_text(text)
        loaded = config.load(None, tmp_path)
        if text is defaults:
            assert loaded.transfer == config.TransferConfig()
    assert loaded.transfer.hours == (HourCap(22, 6, 0),)


@pytest.mark.parametrize(
    "line",
    [
        "order = []",
        'order = ["pigeon"]',
        'order = ["http", "http"]',
        'mirrors = ["cache.local"]',
        "max_bytes_per_s = 5",
        "window = 0",
        "window = 65",
        "windows = 8",
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "agent.toml").write_text(f"[transfer]\n{line}\n")
    with pytest.raises(OperatorError):
        config.load(None, tmp_path)
