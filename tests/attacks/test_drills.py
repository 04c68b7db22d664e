"""Drills: one key is stolen. What its thief can do, what he cannot, and that it ends with the key.

He also holds the network: he answers for the repository and writes to the device's topics.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent import install, transitions
from edgefleet_agent.device import Installed
from edgefleet_agent.install_events import (
    Activated,
    Begin,
    Downloaded,
    Event,
    ProbationPassed,
    Staged,
    TrialPassed,
)
from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import Unverified
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import open_order, seal_order
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import (
    FLEET_POLICY,
    REVOKED_POLICY,
    FleetPolicy,
    RevokedPolicy,
    release_path,
    render_policy,
)
from edgefleet_fleet.work import Actor
from tests.agent.board import Board as WholeDevice
from tests.agent.bundles import make_bundle
from tests.agent.models import WEIGHTS, pixels
from tests.agent.shelf import serve
from tests.attacks.ground import DAY, Board, ControlRoom
from tests.contract.makers import order_of, target_of

EVIL = {release_path("digits", 9): b"evil"}


def target(version: int, slot: str = "digits") -> Target:
    """A release of `ControlRoom.release`."""
    digest = sha256(b"bundle %d" % version)
    return Target(slot, "digits", version, digest, sha256(b"signature"), 100)


def order(room: ControlRoom, seq: int, *targets: Target, **more: object) -> Order:
    return order_of(*targets, seq=seq, issued=room.now, expires=room.now + 7 * DAY, **more)


def commit(board: Board, found: Order) -> Reason | None:
    """Take an order, and see it through to COMMITTED."""
    reason = board.take(found)
    if reason is not None:
        return reason
    wanted = transitions.changed(board.state, found)
    events: tuple[Event, ...] = (Begin(),)
    if wanted:
        chosen = tuple(Installed(one, "v", "onnxruntime") for one in wanted)
        events = (Begin(), Downloaded(chosen), Staged(), Begin(), TrialPassed(), Activated())
        events = (*events, ProbationPassed())
    for event in events:
        board.state, _ = install.step(board.state, event)
    assert board.state.phase is Phase.COMMITTED
    board.journal.save(board.state)
    return None


def runs(board: Board) -> dict[str, int]:
    return {slot: item.target.version for slot, item in board.state.slots.items()}


@pytest.fixture
def served(board: Board, room: ControlRoom) -> Board:
    """Versions 1 to 3 are released, 3 runs."""
    for version in (2, 3):
        room.release(version)
    assert commit(board, order(room, 1, target(3))) is None
    return board


# --- the director --------------------------------------------------------------------------------


def test_a_director_thief_can_choose_among_releases_and_stop_models(
    served: Board, room: ControlRoom
) -> None:
    assert commit(served, order(room, 2, target(2), allow_downgrade=True)) is None
    assert runs(served) == {"digits": 2}
    assert commit(served, order(room, 3)) is None
    assert runs(served) == {}


def test_a_director_thief_cannot_release_revive_or_go_below_a_floor(
    served: Board, room: ControlRoom
) -> None:
    """Nor with permission: that is the publishers' word, and it is where going back ends."""
    unreleased = replace(target(3), version=9, bundle_sha256=sha256(b"evil"))
    swapped = replace(target(4), bundle_sha256=sha256(b"evil"), version=3)
    for bad in (unreleased, swapped):
        refused = commit(served, order(room, 2, bad, allow_downgrade=True))
        assert refused is Reason.NOT_LISTED
    revoked = RevokedPolicy((target(2).bundle_sha256,), {"digits": 2})
    room.publish({REVOKED_POLICY: render_policy(revoked)})
    for version in (1, 2):
        refused = commit(served, order(room, 3, target(version), allow_downgrade=True))
        assert refused is Reason.REVOKED
    assert runs(served) == {"digits": 3}


def test_a_director_thief_cannot_go_back_unseen_by_way_of_an_empty_slot(
    served: Board, room: ControlRoom
) -> None:
    """He must set `allow_downgrade`, which stands signed in his order."""
    assert commit(served, order(room, 2)) is None
    for slot in ("digits", "other"):
        assert commit(served, order(room, 3, target(2, slot))) is Reason.DOWNGRADE
    served.boot()  # nor by a power cut between
    assert commit(served, order(room, 3, target(2))) is Reason.DOWNGRADE
    assert commit(served, order(room, 4, target(3))) is None
    assert runs(served) == {"digits": 3}


def test_a_director_thief_cannot_shut_a_device_to_honest_orders(
    served: Board, room: ControlRoom
) -> None:
    """Not by dates, not by numbers, not by a state that there never will be."""
    ahead = room.now + 100 * 365 * DAY
    dated = replace(order(room, 2, target(3)), issued=ahead, expires=ahead + DAY)
    assert served.take(dated) is Reason.METADATA_EXPIRED
    assert served.take(order(room, 2**53 - 1, target(3))) is Reason.MALFORMED
    later = order(room, 2, target(3), metadata_min=2**53 - 1)
    assert served.take(later) is Reason.METADATA_ROLLBACK
    served.hear_time(room.told(ahead))
    served.boot()
    assert commit(served, order(room, 2, target(3))) is None
    assert served.take(order(room, 2**52, target(3))) is None  # this far he may drive it,
    assert commit(served, order(room, 2**52 + 1, target(3))) is None  # and one more is enough


def test_a_director_thief_is_nobody_once_the_publishers_say_so(
    served: Board, room: ControlRoom
) -> None:
    stolen = room.director
    room.direct_by(PrivateKey.generate_ed25519())
    served.refresh()
    with pytest.raises(Unverified) as caught:
        open_order(seal_order(order(room, 2), stolen), served.keeper.directors)
    assert caught.value.reason is Reason.UNKNOWN_KEY


def test_a_whole_device_refuses_an_order_from_2100_and_goes_on(tmp_path: Path) -> None:
    """Installer, journal, downloads, trial and serving, not the rules alone."""

    async def story() -> None:
        with serve() as shelf:
            targets = []
            for version in (1, 2):
                folder = make_bundle(tmp_path, version)
                shelf.put_bundle(folder)
                targets.append(target_of(folder))
            one, two = targets
            async with WholeDevice(tmp_path / "pi") as board:
                first = order_of(one, seq=1, sources=(shelf.url,))
                assert await board.install(first) is Phase.COMMITTED
                floor = board.installer.device.time_floor
                forged = order_of(
                    two, seq=2, sources=(shelf.url,), issued=4_102_444_800, expires=4_102_531_200
                )
                board.take(forged)
                async with asyncio.timeout(30):
                    while board.heard.steps[-1][1] is not Reason.METADATA_EXPIRED:
                        board.heard.changed.clear()
                        await board.heard.changed.wait()
                assert board.installer.device.time_floor == floor
                second = order_of(two, seq=2, sources=(shelf.url,))
                assert await board.install(second) is Phase.COMMITTED
                assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 2)

    asyncio.run(story())


# --- the repository ------------------------------------------------------------------------------


def test_a_repository_thief_can_hold_news_back_and_no_more(
    served: Board, room: ControlRoom
) -> None:
    """Until targets end, whatever he dates his own documents."""
    room.forge(ends=room.now + 3650 * DAY)
    assert served.refresh().expires == room.now + 90 * DAY
    held = dict(room.lies)
    room.publish({REVOKED_POLICY: render_policy(RevokedPolicy(floors={"digits": 9}))})
    assert served.refresh().revoked.floors == {}
    room.lies = held
    room.now += 90 * DAY
    assert served.refused() is Reason.METADATA_EXPIRED


def test_a_repository_thief_gives_no_orders_releases_nothing_and_names_no_director(
    served: Board, room: ControlRoom
) -> None:
    stolen = room.online
    with pytest.raises(Unverified):
        open_order(seal_order(order(room, 2), stolen), served.keeper.directors)
    mine = FleetPolicy("demo", room.policy.ca, (stolen.public.pem,))
    for put in (EVIL, {FLEET_POLICY: render_policy(mine)}):
        room.forge(put=put, publisher=stolen)
        assert served.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    room.release(4)
    assert commit(served, order(room, 2, target(4))) is None


def test_a_repository_thief_is_nobody_once_the_root_says_so(
    served: Board, room: ControlRoom
) -> None:
    stolen = room.online
    room.rotate(repository=PrivateKey.generate_ed25519())
    served.refresh()
    room.forge(online=stolen)
    assert served.refused() is Reason.METADATA_INVALID


# --- a publisher ---------------------------------------------------------------------------------


def test_a_publisher_thief_alone_reaches_no_device(served: Board, room: ControlRoom) -> None:
    """Targets are nothing without the repository key, and nothing runs without the director's."""
    room.forge(put=EVIL, publisher=room.publisher, online=room.publisher)
    assert served.refused() is Reason.METADATA_INVALID
    evil = replace(target(3), version=9, bundle_sha256=sha256(b"evil"))
    with pytest.raises(Unverified):
        open_order(seal_order(order(room, 2, evil), room.publisher), served.keeper.directors)
    room.lies.clear()
    assert commit(served, order(room, 2, evil)) is Reason.NOT_LISTED


def test_a_publisher_thief_with_the_control_room_can_release_until_two_root_keys_end_it(
    served: Board, room: ControlRoom
) -> None:
    stolen, fresh = room.publisher, PrivateKey.generate_p256()
    evil = replace(target(3), version=9, bundle_sha256=sha256(b"evil"))
    room.forge(put=EVIL, publisher=stolen)
    assert commit(served, order(room, 2, evil)) is None
    room.lies.clear()
    room.rotate(publishers=(stolen.public, fresh.public))
    room.publisher = fresh
    revoked = RevokedPolicy((evil.bundle_sha256,))
    room.publish({REVOKED_POLICY: render_policy(revoked)})
    room.rotate(publishers=(fresh.public,))
    assert served.refresh().publishers == (fresh.public,)
    assert commit(served, order(room, 3, replace(evil, slot="x"))) is Reason.NOT_LISTED
    room.forge(put=EVIL, publisher=stolen)
    assert served.refused() is Reason.METADATA_INVALID


# --- one root key --------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [True, False])
def test_a_thief_of_one_root_key_changes_nothing(
    served: Board, room: ControlRoom, alone: bool
) -> None:
    """Not even beside every key of the control room: neither for a device nor for the fleet."""
    thief, one = PrivateKey.generate_p256(), room.roots[0]
    online = PrivateKey.generate_ed25519() if alone else room.online
    for changes in (
        {"publishers": (thief.public,)},
        {"threshold": 1},
        {"roots": (one.public,), "threshold": 1},
        {"repository": online.public, "publishers": (thief.public,)},
    ):
        root = room.new_root(one, thief, room.director, **changes)
        room.forge(put=EVIL, publisher=thief, online=online)
        room.lies["2.root.json"] = root
        assert served.refused() is Reason.METADATA_INVALID
        with pytest.raises(Unverified):
            room.publications.replace_root(root, actor=Actor("thief"))
    room.lies.clear()
    room.rotate(*room.roots[1:], publishers=(room.publisher.public,))
    assert served.refresh().versions.root == 2
    assert commit(served, order(room, 2, target(3))) is None


def test_two_root_keys_without_the_stolen_one_end_it(served: Board, room: ControlRoom) -> None:
    """The other two are enough to name another three."""
    stolen, *kept = room.roots
    new = [*kept, PrivateKey.generate_ed25519()]
    room.rotate(*kept, roots=tuple(key.public for key in new))
    assert served.refresh().versions.root == 2
    thief = PrivateKey.generate_p256()
    room.lies["3.root.json"] = room.new_root(stolen, kept[0], publishers=(thief.public,))
    assert served.refused() is Reason.METADATA_INVALID
