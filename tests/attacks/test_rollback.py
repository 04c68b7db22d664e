"""Rollback attack (TUF specification, 1.5.2).

The attacker kept an older state of the repository, with every signature good and none expired, and
answers with it: he wants back a release that was taken back since. He may also have spoilt what the
device keeps (a power cut did, or bad sectors): its cache of metadata, its journal, one of both.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_agent.adapters.journal import COPIES
from edgefleet_contract.errors import Unverified
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import REVOKED_POLICY, RevokedPolicy, render_policy
from tests.attacks.ground import DAY, Board, ControlRoom
from tests.contract.makers import order_of

STATES = ("intact", "truncated", "deleted")


def spoil(paths: list[Path], state: str) -> None:
    assert paths
    for path in paths:
        if state == "truncated":
            path.write_bytes(path.read_bytes()[:20])
        elif state == "deleted":
            path.unlink()


def take_back(room: ControlRoom) -> dict[str, bytes]:
    """Version 1 is revoked; what was said before it was."""
    old = room.mirror()
    revoked = RevokedPolicy(floors={"digits": 2})
    room.publish({REVOKED_POLICY: render_policy(revoked)})
    return old


def test_an_older_state_is_refused_by_whatever_way_it_comes(
    any_board: Board, room: ControlRoom
) -> None:
    old = take_back(room)
    any_board.refresh()
    room.play_back(old)
    assert any_board.refused() is Reason.METADATA_ROLLBACK
    room.lies.clear()
    assert any_board.refresh().revoked.floors == {"digits": 2}


@pytest.mark.parametrize("journal", STATES)
@pytest.mark.parametrize("cache", STATES)
def test_an_older_state_is_refused_whatever_became_of_what_the_device_keeps(
    board: Board, room: ControlRoom, cache: str, journal: str
) -> None:
    """Journal and cache make good for each other. Both gone, a device is as it was on its first
    day: what has not ended is taken once more, what has ended is not."""
    old = take_back(room)
    board.refresh()
    spoil([path for path in board.cache.rglob("*.json") if path.is_file()], cache)
    spoil([path for name in COPIES if (path := board.folder / name).exists()], journal)
    board.boot()
    room.play_back(old)
    if "intact" in (cache, journal):
        assert board.refused() is Reason.METADATA_ROLLBACK
    else:
        room.now += 3 * DAY
        assert board.refused() is Reason.METADATA_EXPIRED
    room.lies.clear()
    room.publications.keep_fresh()
    assert board.refresh().revoked.floors == {"digits": 2}


def test_a_cache_that_has_ended_still_says_what_was_seen(board: Board, room: ControlRoom) -> None:
    """The journal is lost, the cache too old to be used: an older state is not believed for it."""
    first = room.mirror()
    room.now += DAY
    take_back(room)
    board.refresh()
    spoil([path for name in COPIES if (path := board.folder / name).exists()], "deleted")
    room.now += 3 * DAY
    board.boot()
    assert board.keeper.trust is None
    room.play_back(first)
    board.skew = -3 * DAY  # the clock falls back to where nothing of it had ended
    assert board.refused() is Reason.METADATA_ROLLBACK


@pytest.mark.parametrize("cut", [20, 400])
def test_a_cache_that_is_spoilt_in_one_place_is_believed_for_the_rest(
    board: Board, room: ControlRoom, cut: int
) -> None:
    """Journal lost, snapshot or targets cut: the timestamp alone tells an older state."""
    old = take_back(room)
    board.refresh()
    spoil([path for name in COPIES if (path := board.folder / name).exists()], "deleted")
    for path in board.cache.glob("*.*.json"):
        if "root" not in path.name:
            path.write_bytes(path.read_bytes()[:cut])
    board.boot()
    room.play_back(old)
    assert board.refused() is Reason.METADATA_ROLLBACK


def test_an_order_names_the_oldest_state_by_which_it_may_be_judged(
    board: Board, room: ControlRoom
) -> None:
    """A device that was away, and is shown a state that is newer than what it saw and yet old."""
    room.release(2)
    between = room.mirror()
    take_back(room)
    newest = board.seen.timestamp + 2
    order = order_of(issued=room.now, expires=room.now + DAY, metadata_min=newest)
    room.play_back(between)
    with pytest.raises(Unverified) as caught:
        board.judge(order)
    assert caught.value.reason is Reason.METADATA_ROLLBACK
    room.lies.clear()
    assert board.judge(order).versions.timestamp == newest
