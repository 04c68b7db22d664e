"""Fast-forward attack (TUF specification, 1.5.2 and 5.3.11).

The attacker holds the repository key, or a publisher's beside it, for a while, and drives version
numbers so high that what its owner says afterwards looks old. He wants devices to be deaf for good.
"""

from __future__ import annotations

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from tests.attacks.ground import Board, ControlRoom

HIGHEST = 2**53 - 1


def test_a_root_with_another_repository_key_undoes_high_timestamps(
    any_board: Board, room: ControlRoom
) -> None:
    room.forge(timestamp=HIGHEST)
    assert any_board.refresh().versions.timestamp == HIGHEST
    room.lies.clear()
    room.release(2)
    assert any_board.refused() is Reason.METADATA_ROLLBACK  # this is what he wanted
    room.rotate(repository=PrivateKey.generate_ed25519())
    trust = any_board.refresh()
    assert trust.lists("digits", 2, sha256(b"bundle 2"))
    assert any_board.seen.timestamp < 10
    any_board.boot()  # and so it stays, by the journal and by the cache
    room.release(3)
    assert any_board.refresh().lists("digits", 3, sha256(b"bundle 3"))


def test_a_root_without_the_publisher_undoes_high_targets(board: Board, room: ControlRoom) -> None:
    stolen, fresh = room.publisher, PrivateKey.generate_p256()
    room.rotate(publishers=(stolen.public, fresh.public))
    room.publisher = fresh
    room.release(2)
    board.refresh()
    room.forge(publisher=stolen, numbered=HIGHEST)
    assert board.refresh().versions.targets == HIGHEST
    room.lies.clear()
    room.release(3)
    assert board.refused() is Reason.METADATA_ROLLBACK
    room.rotate(publishers=(fresh.public,))
    assert board.refresh().lists("digits", 3, sha256(b"bundle 3"))


def test_a_root_that_drops_nobody_drops_no_floor(board: Board, room: ControlRoom) -> None:
    """Otherwise every ceremony would open the door to older states."""
    old = room.mirror()
    room.release(2)
    board.refresh()
    fresh = PrivateKey.generate_p256()
    room.rotate(publishers=(room.publisher.public, fresh.public))
    roots = {name: raw for name, raw in room.mirror().items() if name.endswith("root.json")}
    room.play_back({**old, **roots})
    assert board.refused() is Reason.METADATA_ROLLBACK


def test_the_thief_cannot_undo_anything_with_his_key(board: Board, room: ControlRoom) -> None:
    """After the rotation his old documents, and new ones by his key, are nobody's."""
    stolen = room.online
    old = room.mirror()
    room.rotate(repository=PrivateKey.generate_ed25519())
    board.refresh()
    roots = {name: raw for name, raw in room.mirror().items() if name.endswith("root.json")}
    room.play_back({**old, **roots})
    assert board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    room.forge(online=stolen)
    assert board.refused() is Reason.METADATA_INVALID


@pytest.mark.parametrize("version", [2**53, 2**64])
def test_a_number_that_no_journal_can_hold_is_refused(
    board: Board, room: ControlRoom, version: int
) -> None:
    """It would end the agent at each write of the journal."""
    room.forge(timestamp=version)
    assert board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    room.release(2)
    assert board.refresh().versions.timestamp == board.seen.timestamp
