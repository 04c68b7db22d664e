"""Arbitrary software installation (TUF specification, 1.5.2).

The attacker answers in the repository's place, over any way that a device listens on, and may hold
keys that are not a publisher's: his own, or all of the control room. He wants a device to take
targets of his making.
"""

from __future__ import annotations

import pytest

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import FLEET_POLICY, FleetPolicy, release_path, render_policy
from tests.attacks.ground import Board, ControlRoom

EVIL = {release_path("digits", 9): b"evil"}


def test_what_the_publishers_say_arrives(any_board: Board, room: ControlRoom) -> None:
    room.release(2)
    trust = any_board.refresh()
    assert trust.lists("digits", 2, sha256(b"bundle 2"))
    assert not trust.lists("digits", 2, Digest("0" * 64))
    assert not trust.lists("digits", 3, sha256(b"bundle 2"))
    assert trust.publishers == (room.publisher.public,)
    assert trust.director_ring.get(room.director.public.id) is not None


def test_a_stranger_with_keys_of_his_own_is_refused(any_board: Board, room: ControlRoom) -> None:
    stranger, other = PrivateKey.generate_p256(), PrivateKey.generate_ed25519()
    room.forge(put=EVIL, publisher=stranger, online=other)
    assert any_board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    room.release(2)
    assert any_board.refresh().lists("digits", 2, sha256(b"bundle 2"))


def test_a_stranger_without_keys_is_refused(any_board: Board, room: ControlRoom) -> None:
    """Honest documents, edited on the way."""
    for name, raw in room.mirror().items():
        if name.endswith("targets.json"):
            room.lies[name] = raw.replace(sha256(b"bundle 1").encode(), sha256(b"evil").encode())
    assert any_board.refused() is Reason.METADATA_INVALID


def test_the_control_room_cannot_speak_for_a_publisher(board: Board, room: ControlRoom) -> None:
    """Whoever has the repository key and the director key still cannot release anything."""
    for key in (room.online, room.director):
        room.forge(put=EVIL, publisher=key)
        assert board.refused() is Reason.METADATA_INVALID
    room.forge(put=EVIL, publisher=room.publisher)  # so forged documents are taken, in principle
    assert board.refresh().lists("digits", 9, sha256(b"evil"))


def test_nobody_but_publishers_says_who_directs(board: Board, room: ControlRoom) -> None:
    evil = PrivateKey.generate_ed25519()
    policy = FleetPolicy("demo", room.policy.ca, (evil.public.pem,))
    put = {FLEET_POLICY: render_policy(policy)}
    room.forge(put=put, publisher=room.online)
    assert board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    listed = next(name for name in room.mirror() if name.endswith(".fleet.json"))
    room.lies[listed] = render_policy(policy)  # under the name of the honest one
    assert board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    room.direct_by(evil)
    assert board.refresh().director_ring.get(evil.public.id) is not None


@pytest.mark.parametrize("wrong", [b"", b"{}", b"[]", b"\xff\xfe", b"null", b'{"signed":{}}'])
@pytest.mark.parametrize("role", ["timestamp.json", "snapshot.json", "targets.json"])
def test_what_is_no_metadata_at_all_is_refused(
    board: Board, room: ControlRoom, role: str, wrong: bytes
) -> None:
    for name in room.mirror():
        if name.endswith(role):
            room.lies[name] = wrong
    assert board.refused() is Reason.METADATA_INVALID
