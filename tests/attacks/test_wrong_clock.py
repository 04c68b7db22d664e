"""A wrong clock, and a time that is made wrong (TUF specification, 5.1 and 5.6.6).

A board without a battery wakes up in 1970; an attacker on its network tells it 2020 or 2100 by
NTP, or holds the director key and dates orders and signed times. He wants old metadata and orders
to be good again, or every honest one to look ended, for good.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.orders import MAX_ORDER_LIFE_S, Order
from edgefleet_contract.reasons import Reason
from tests.attacks.ground import DAY, Board, ControlRoom
from tests.contract.makers import order_of

EARLY = {"1970": 0, "2020": int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())}
LATE = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())


def order(seq: int, issued: int, life: int = 7 * DAY) -> Order:
    """An order that lives as long as the control room's do."""
    return order_of(seq=seq, issued=issued, expires=issued + life)


def still_hears(board: Board, room: ControlRoom, version: int, seq: int) -> None:
    """Honest operation: a release is heard of, an order is taken."""
    room.release(version)
    assert board.refresh().lists("digits", version, sha256(b"bundle %d" % version))
    assert board.take(order(seq, room.now)) is None


@pytest.mark.parametrize("year", EARLY)
def test_a_clock_that_is_behind_does_not_bring_back_what_ended(
    board: Board, room: ControlRoom, year: str
) -> None:
    """What a director signed last is the time, across starts; without it, nothing could tell."""
    old = room.mirror()
    past = order(1, room.now, DAY)
    room.now += 3 * DAY
    room.publications.keep_fresh()
    board.hear_time(room.told(room.now))
    still_hears(board, room, 2, seq=2)
    board.clock = EARLY[year]
    board.boot()
    assert board.keeper.now == room.now
    assert board.take(past) is Reason.STALE_ORDER
    assert board.take(order(3, past.issued, DAY)) is Reason.ORDER_EXPIRED
    room.play_back(old)
    assert board.refused() is Reason.METADATA_ROLLBACK  # ended, and judged by the bare clock older
    room.lies.clear()
    still_hears(board, room, 3, seq=4)


@pytest.mark.parametrize("year", EARLY)
def test_a_board_without_a_clock_works(board: Board, room: ControlRoom, year: str) -> None:
    board.clock = EARLY[year]
    board.boot()
    for day in range(1, 5):
        room.now += DAY
        room.publications.keep_fresh()
        board.hear_time(room.told(room.now))
        still_hears(board, room, day + 1, seq=day)


def test_a_clock_that_is_ahead_hears_nothing_until_it_is_right_again(
    board: Board, room: ControlRoom
) -> None:
    """And it leaves nothing behind: the board's own clock is no signed time."""
    room.release(2)
    board.clock = LATE
    assert board.refused() is Reason.METADATA_EXPIRED
    assert board.take(order(1, room.now)) is Reason.ORDER_EXPIRED
    board.boot()
    assert board.keeper.trust is None
    board.clock = None
    board.boot()
    assert board.state.time_floor == 0
    still_hears(board, room, 3, seq=1)


@pytest.mark.parametrize("life", [DAY, MAX_ORDER_LIFE_S])
def test_an_order_that_is_dated_ahead_is_refused_and_changes_nothing(
    board: Board, room: ControlRoom, life: int
) -> None:
    """By a stolen director key: 2100, and the first moment after what the publishers said."""
    for issued in (LATE, 2**52, board.keeper.trust.expires if board.keeper.trust else 0):
        before = board.state
        assert board.take(order(7, issued, life)) is Reason.METADATA_EXPIRED
        assert (board.state.seq, board.state.time_floor) == (before.seq, before.time_floor)
    still_hears(board, room, 2, seq=1)


def test_the_furthest_date_that_is_taken_costs_nothing(board: Board, room: ControlRoom) -> None:
    assert board.keeper.trust is not None
    furthest = board.keeper.trust.expires - 1
    assert board.take(order(1, furthest)) is None
    assert board.state.time_floor == furthest
    still_hears(board, room, 2, seq=2)
    room.now += DAY
    room.publications.keep_fresh()
    still_hears(board, room, 3, seq=3)


@pytest.mark.parametrize("moment", [LATE, 2**52])
def test_a_signed_time_that_is_ahead_is_believed_up_to_the_end_of_the_metadata(
    board: Board, room: ControlRoom, moment: int
) -> None:
    """By a stolen director key: no news until the next timestamp, a day at most."""
    assert board.keeper.trust is not None
    end = board.keeper.trust.expires
    board.hear_time(room.told(moment))
    assert board.keeper.now == end
    assert board.refused() is Reason.METADATA_EXPIRED
    board.boot()
    board.hear_time(room.told(room.now))  # the control room tells the time every few minutes
    room.now += DAY + 1
    room.publications.keep_fresh()
    still_hears(board, room, 2, seq=1)


def test_a_thief_who_tells_it_every_day_is_over_with_his_key(
    board: Board, room: ControlRoom
) -> None:
    stolen = room.director
    for _ in range(3):
        board.hear_time(room.told(LATE, stolen))
        room.now += DAY + 1
        room.publications.keep_fresh()
        board.refresh()
        assert board.take(order(1, room.now)) is Reason.METADATA_EXPIRED
    room.now += 60
    room.direct_by(PrivateKey.generate_ed25519())
    board.refresh()
    still_hears(board, room, 2, seq=1)


def test_both_online_keys_set_a_clock_forward_until_targets_end_or_a_new_root_comes(
    board: Board, room: ControlRoom
) -> None:
    """Root and targets are offline: their date bounds what any key of the control room can do."""
    room.forge(ends=LATE)
    trust = board.refresh()
    assert trust.expires == room.now + 90 * DAY
    board.hear_time(room.told(LATE))
    assert board.refused() is Reason.METADATA_EXPIRED
    assert board.keeper.learned_time == trust.expires
    thief = room.director
    board._follow(trust)  # and it is in the journal, too
    assert board.state.time_floor == trust.expires
    room.lies.clear()
    room.publications.keep_fresh()
    assert board.refused() in (Reason.METADATA_EXPIRED, Reason.METADATA_ROLLBACK)
    room.rotate(repository=PrivateKey.generate_ed25519())
    room.direct_by(PrivateKey.generate_ed25519())
    board.refresh()
    assert board.state.time_floor == 0
    board.hear_time(room.told(LATE, thief))
    still_hears(board, room, 2, seq=1)


def test_only_the_clock_of_the_board_counts_where_a_new_root_came(
    board: Board, room: ControlRoom
) -> None:
    """What has ended by it stays ended: a rotation brings nothing old back."""
    room.forge(ends=LATE)
    board.refresh()
    board.hear_time(room.told(LATE))
    room.lies.clear()
    room.rotate(repository=PrivateKey.generate_ed25519())
    room.play_back(room.mirror())
    room.now += 3 * DAY
    assert board.refused() is Reason.METADATA_EXPIRED
