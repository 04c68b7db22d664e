"""Indefinite freeze attack (TUF specification, 1.5.2).

The attacker answers with what was true for a while and lets nothing newer through: he wants devices
to go on with a release, a director or a key that was taken back. He may hold the repository key,
with which he can say afresh that the old is the newest.
"""

from __future__ import annotations

import pytest

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors
from edgefleet_fleet import tuf_repo
from tests.attacks.ground import DAY, Board, ControlRoom
from tests.contract.makers import order_of


def test_news_that_are_held_back_are_missed_when_the_timestamp_ends(
    any_board: Board, room: ControlRoom
) -> None:
    room.play_back(room.mirror())
    room.now += 2 * DAY - 60
    assert any_board.refresh().versions == any_board.seen
    room.now += 60
    assert any_board.refused() is Reason.METADATA_EXPIRED
    any_board.boot()
    assert any_board.keeper.trust is None  # nor does the cache count any longer
    assert any_board.refused() is Reason.METADATA_EXPIRED
    room.lies.clear()
    room.publications.keep_fresh()
    assert any_board.refresh().versions.timestamp > 2


def test_a_board_without_a_clock_misses_them_by_the_signed_time(
    board: Board, room: ControlRoom
) -> None:
    """Its clock stands still; the broker still tells the time."""
    board.clock = room.now
    room.play_back(room.mirror())
    room.now += 3 * DAY
    assert board.refresh().versions == board.seen
    board.hear_time(room.told(room.now))
    assert board.refused() is Reason.METADATA_EXPIRED
    room.lies.clear()
    room.publications.keep_fresh()
    assert board.refresh().expires > room.now


def test_a_state_between_is_missed_as_well(board: Board, room: ControlRoom) -> None:
    """Newer than what the device saw, and ended by the time that it was told."""
    board.clock = room.now
    room.now += DAY
    room.release(2)
    between = room.mirror()
    room.now += 3 * DAY
    room.play_back(between)
    board.hear_time(room.told(room.now))
    order = order_of(seq=1, issued=room.now, expires=room.now + DAY)
    assert board.take(order) is Reason.METADATA_EXPIRED
    assert board.refused() is Reason.METADATA_EXPIRED
    room.lies.clear()
    room.publications.keep_fresh()
    assert board.take(order) is None


def test_a_thief_of_the_repository_key_holds_news_back_until_targets_end(
    board: Board, room: ControlRoom
) -> None:
    """He says every day that the old is the newest; only the publishers' own date stops that."""
    held = room.current.targets
    left = int(tuf_repo.expires_of(held).timestamp()) - room.now
    assert left == 90 * DAY
    room.now += left - DAY
    room.forge(ends=room.now + 3650 * DAY)
    trust = board.refresh()
    assert trust.expires == room.now + DAY  # whatever he dated it
    room.now += DAY
    assert board.refused() is Reason.METADATA_EXPIRED


def test_who_saw_the_news_cannot_be_brought_back_by_that_thief(
    board: Board, room: ControlRoom
) -> None:
    old = room.current.targets
    room.release(2)
    board.refresh()
    number = tuf_repo.version_of(room.current.snapshot) + 1
    snapshot = tuf_repo.make_snapshot(old, version=number, now=room.moment, key=room.online)
    number_2 = tuf_repo.version_of(room.current.timestamp) + 1
    timestamp = tuf_repo.make_timestamp(
        snapshot, version=number_2, now=room.moment, key=room.online
    )
    room.lies = {f"{number}.snapshot.json": snapshot, "timestamp.json": timestamp}
    assert board.refused() is Reason.METADATA_ROLLBACK
    room.lies.clear()
    assert board.refresh().versions == board.seen


@pytest.mark.parametrize("ends", [3, 30, 89])
def test_a_root_that_ended_ends_all(board: Board, room: ControlRoom, ends: int) -> None:
    """Withholding the next root is a freeze, too: the last one's date is the end of it."""
    room.now += 365 * DAY - ends * DAY
    room.release(2)
    trust = board.refresh()
    assert trust.expires <= room.now + ends * DAY
    room.now += ends * DAY
    room.release(3)
    room.publications.keep_fresh()
    assert board.refused() is Reason.METADATA_EXPIRED
    room.rotate()
    assert board.refresh().versions.root == 2


def test_the_floors_of_a_frozen_device_stay(board: Board, room: ControlRoom) -> None:
    room.play_back(room.mirror())
    room.now += 3 * DAY
    assert board.refused() is Reason.METADATA_EXPIRED
    keys = board.seen
    assert keys == TrustFloors(1, 2, 2, 2, keys.online, keys.publishers)
    assert keys.online == (room.online.public.id,)
    assert keys.publishers == (room.publisher.public.id,)
    assert PrivateKey.generate_p256().public.id not in keys.publishers
