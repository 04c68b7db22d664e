"""Revoked keys (TUF specification, 1.5.2: vulnerability to key compromises).

The attacker holds a key that was good once and was taken back: a publisher's, a director's, the
repository's. He wants it to count again, by hiding the news of its end or by what he signed before.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import Unverified
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import open_order, seal_order
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import release_path
from tests.attacks.ground import DAY, Board, ControlRoom
from tests.contract.makers import order_of

EVIL = {release_path("digits", 9): b"evil"}


@pytest.fixture
def stolen(board: Board, room: ControlRoom) -> PrivateKey:
    """A publisher's key, taken back; the device knows."""
    stolen, fresh = room.publisher, PrivateKey.generate_p256()
    room.rotate(publishers=(stolen.public, fresh.public))
    room.publisher = fresh
    room.release(2)
    room.rotate(publishers=(fresh.public,))
    assert board.refresh().publishers == (fresh.public,)
    return stolen


def test_a_revoked_publisher_can_say_nothing_any_more(
    board: Board, room: ControlRoom, stolen: PrivateKey
) -> None:
    room.forge(put=EVIL, publisher=stolen)
    assert board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    room.release(3)
    assert board.refresh().lists("digits", 3, sha256(b"bundle 3"))


@pytest.mark.parametrize("lost", ["nothing", "cache", "journal"])
def test_hiding_the_root_that_revoked_it_is_in_vain(
    board: Board, room: ControlRoom, stolen: PrivateKey, lost: str
) -> None:
    """Even with the online keys: what the device keeps of it, journal or cache, is enough."""
    gone: list[Path] = []
    if lost == "cache":
        gone = list(board.cache.rglob("*.json"))
    elif lost == "journal":
        gone = list(board.folder.glob("journal.?"))
    for path in gone:
        path.unlink()
    board.boot()
    room.forge(put=EVIL, publisher=stolen)
    room.lies |= {"2.root.json": None, "3.root.json": None}
    assert board.refused() in (Reason.METADATA_INVALID, Reason.METADATA_ROLLBACK)
    room.lies.clear()
    assert board.refresh().versions.root == 3


def test_a_device_that_never_heard_of_the_end_is_told_by_the_next_honest_answer(
    tmp_path: Path, board: Board, room: ControlRoom
) -> None:
    """Who has publisher and repository key and the network has such a device until then."""
    away = Board(tmp_path / "away", room)
    away.refresh()
    thief, fresh = room.publisher, PrivateKey.generate_p256()
    room.forge(put=EVIL, publisher=thief)
    room.lies["2.root.json"] = None
    room.rotate(publishers=(thief.public, fresh.public))
    assert away.refresh().lists("digits", 9, sha256(b"evil"))
    room.lies.clear()
    room.publisher = fresh
    room.release(2)
    room.rotate(publishers=(fresh.public,))
    trust = away.refresh()
    assert not trust.lists("digits", 9, sha256(b"evil"))
    assert trust.lists("digits", 2, sha256(b"bundle 2"))


def test_a_revoked_director_gives_no_orders_and_tells_no_time(
    board: Board, room: ControlRoom
) -> None:
    stolen, fresh = room.director, PrivateKey.generate_ed25519()
    order = order_of(seq=1, issued=room.now, expires=room.now + DAY)
    ring = board.keeper.directors
    assert open_order(seal_order(order, stolen), ring) == order
    room.direct_by(fresh)
    board.refresh()
    with pytest.raises(Unverified) as caught:
        open_order(seal_order(order, stolen), board.keeper.directors)
    assert caught.value.reason is Reason.UNKNOWN_KEY
    board.hear_time(room.told(room.now + DAY, stolen))
    assert board.keeper.learned_time == 0
    board.hear_time(room.told(room.now + DAY, fresh))
    assert board.keeper.learned_time == room.now + DAY
