"""A new release comes as a delta from the one that serves, and whole on any trouble."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgefleet_agent.adapters.store import Store
from edgefleet_agent.bundles import Arrival, Bundles
from edgefleet_agent.device import Installed
from edgefleet_agent.ports import Moved
from edgefleet_contract import bundle as b
from edgefleet_contract.delta import Code, Kind, Operation
from edgefleet_contract.errors import DeviceError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.lanes import Layout
from edgefleet_contract.reasons import Reason
from tests.agent import bringer
from tests.agent.shelf import Shelf, serve
from tests.contract.deltas import by_operations, noise, whole
from tests.contract.makers import target_of, write_bundle

SIZE, AT, CHANGED = 600_000, 200_000, 160_000
ONE = noise("version 1", SIZE)
TWO = ONE[:AT] + noise("changed", CHANGED) + ONE[AT + CHANGED :]
DELTA = by_operations(
    ONE,
    TWO,
    (
        Operation(Code.COPY, 0, AT),
        Operation(Code.NEW, 0, CHANGED, Layout.BYTES),
        Operation(Code.COPY, AT + CHANGED, SIZE - AT - CHANGED),
    ),
)
NAME = f"{b.sha256(TWO)}/delta/{b.sha256(ONE)}"
GOLDEN = len(b"golden")


@dataclass
class Board:
    """A device on which version 1 serves, and a shelf that has version 2."""

    folder: Path
    shelf: Shelf
    bundles: Bundles
    store: Store
    one: Installed

    def update(self) -> Arrival:
        two = target_of(self.folder / "digits-2")
        arrival = self.bundles.bring(two, (self.shelf.url,), self.told, serving=(self.one,))
        assert self.store.read(b.sha256(TWO)) == TWO
        return arrival

    def told(self, _target: object, done: int, total: int) -> None:
        assert 0 <= done <= total

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.shelf.requests]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    key = PrivateKey.generate_p256()
    key.save(tmp_path / "key.pem")
    with serve() as shelf:
        for version, content in enumerate((ONE, TWO), 1):
            shelf.put_bundle(write_bundle(tmp_path, key, version=version, content=content))
        made, store = bringer.device(tmp_path)
        arrival = made.bring(target_of(tmp_path / "digits-1"), (shelf.url,), lambda *_: None)
        made.take_moved()
        shelf.requests.clear()
        shelf.blobs[NAME] = DELTA
        yield Board(tmp_path, shelf, made, store, arrival.installed)


def test_an_update_comes_as_a_delta_and_tells_what_that_saved(board: Board) -> None:
    assert board.update().transferred == 0
    assert b.sha256(TWO) not in board.asked
    moved = board.bundles.take_moved()
    assert (moved.deltas, moved.saved) == (len(DELTA), len(TWO) - len(DELTA))
    assert moved.uplink < len(DELTA) + 5_000
    assert board.bundles.take_moved() == Moved({}, 0)
    assert not list((board.folder / "store" / "parts").iterdir())


def is_whole(board: Board) -> bool:
    return b.sha256(TWO) in board.asked and board.bundles.take_moved().saved == 0


def forged() -> bytes:
    """A good delta to other bytes, under the digest that is asked for."""
    other = TWO[:-1] + bytes([TWO[-1] ^ 1])
    return whole(Kind.PREFIX, ONE, other).replace(b.sha256(other).encode(), b.sha256(TWO).encode())


@pytest.mark.parametrize(
    "delta",
    [None, b"", b"<html>", DELTA[:-10], DELTA[:100], DELTA + b"!", forged(), noise("x", SIZE)],
    ids=["404", "empty", "html", "truncated", "head", "longer", "forged", "too long"],
)
def test_a_delta_that_is_missing_or_wrong_gives_way_to_the_whole_file(
    board: Board, delta: bytes | None
) -> None:
    if delta is None:
        del board.shelf.blobs[NAME]
    else:
        board.shelf.blobs[NAME] = delta
    board.update()
    assert is_whole(board)
    assert board.asked.count(NAME) == 1


def test_of_what_a_wrong_delta_made_the_good_chunks_are_kept(board: Board) -> None:
    board.shelf.blobs[NAME] = forged()
    assert board.update().transferred == len(TWO) % b.CHUNK_SIZE


def test_an_old_file_that_has_rotted_gives_way_to_the_whole_file(board: Board) -> None:
    path = board.store.path(b.sha256(ONE))
    path.chmod(0o600)
    path.write_bytes(b"?" + ONE[1:])
    board.update()
    assert is_whole(board)


def test_a_board_without_the_library_asks_for_no_delta(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("backports.zstd")
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    board.update()
    assert NAME not in board.asked


def test_a_file_that_has_begun_to_come_whole_goes_on_so(board: Board) -> None:
    board.store.part_path(b.sha256(TWO)).write_bytes(TWO[: 3 * b.CHUNK_SIZE])
    assert board.update().transferred == len(TWO) - 3 * b.CHUNK_SIZE
    assert NAME not in board.asked


def test_a_disk_with_room_for_the_file_and_not_for_a_delta_takes_the_file(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def little(size: int) -> None:
        if size > len(TWO) + GOLDEN:
            raise DeviceError("no room", reason=Reason.NO_SPACE)

    monkeypatch.setattr(board.store, "require_space", little)
    board.update()
    assert NAME not in board.asked


def test_only_a_release_of_the_same_model_in_the_clear_is_a_base(board: Board) -> None:
    board.one = replace(board.one, target=replace(board.one.target, model="other"))
    board.update()
    assert NAME not in board.asked


def test_a_release_whose_documents_are_gone_is_no_base(board: Board) -> None:
    board.store.path(board.one.target.bundle_sha256).unlink()
    board.update()
    assert NAME not in board.asked


@pytest.mark.parametrize("stage", ["fetching", "applying"])
def test_a_device_that_is_killed_in_the_middle_of_a_delta_goes_on_with_it(
    board: Board, stage: str
) -> None:
    command = [sys.executable, "-m", "tests.agent.bringer", str(board.folder), board.shelf.url]
    done = subprocess.run([*command, stage], check=False)
    assert done.returncode == -signal.SIGKILL
    kept = board.store.delta_path(b.sha256(ONE), b.sha256(TWO)).stat().st_size
    assert 0 < kept <= len(DELTA)
    board.shelf.requests.clear()
    board.update()
    assert (NAME, kept) in board.shelf.requests
    assert b.sha256(TWO) not in board.asked
    assert board.bundles.take_moved().deltas == len(DELTA) - kept
