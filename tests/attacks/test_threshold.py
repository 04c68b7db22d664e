"""Key compromise below the threshold (TUF specification, 1.5.2: vulnerability to key compromises).

The attacker holds fewer root keys than must sign, and everything on the network. He wants a root of
his own, or a lower threshold, or the same key to count twice.
"""

from __future__ import annotations

import json

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import release_path
from edgefleet_fleet.work import Actor
from tests.attacks.ground import Board, ControlRoom


@pytest.fixture
def thief() -> PrivateKey:
    return PrivateKey.generate_p256()


def serve_evil(room: ControlRoom, root: bytes, thief: PrivateKey) -> None:
    room.forge(put={release_path("digits", 9): b"evil"}, publisher=thief)
    room.lies["2.root.json"] = root


@pytest.mark.parametrize("stolen", [0, 1, 2])
def test_as_many_root_keys_as_the_threshold_are_needed_and_no_fewer(
    any_board: Board, room: ControlRoom, thief: PrivateKey, stolen: int
) -> None:
    signers = [*room.roots[:stolen], PrivateKey.generate_ed25519()]
    serve_evil(room, room.new_root(*signers, publishers=(thief.public,)), thief)
    if stolen == 2:
        assert any_board.refresh().lists("digits", 9, sha256(b"evil"))
    else:
        assert any_board.refused() is Reason.METADATA_INVALID
        room.lies.clear()
        room.release(2)
        assert any_board.refresh().lists("digits", 2, sha256(b"bundle 2"))


def test_one_key_does_not_count_twice(board: Board, room: ControlRoom, thief: PrivateKey) -> None:
    """Not by two signatures, not by two names for it."""
    one = room.roots[0]
    root = json.loads(room.new_root(one, publishers=(thief.public,)))
    twice = {**root, "signatures": root["signatures"] * 2}
    other = {**root["signatures"][0], "keyid": room.roots[1].public.id}
    renamed = {**root, "signatures": [root["signatures"][0], other]}
    for forged in (twice, renamed):
        serve_evil(room, json.dumps(forged).encode(), thief)
        assert board.refused() is Reason.METADATA_INVALID


def test_one_key_cannot_lower_the_threshold(
    board: Board, room: ControlRoom, thief: PrivateKey
) -> None:
    one = room.roots[0]
    lower = room.new_root(one, threshold=1, roots=(one.public,), publishers=(thief.public,))
    serve_evil(room, lower, thief)
    assert board.refused() is Reason.METADATA_INVALID


def test_nor_does_the_control_room_take_a_root_by_one_key(
    board: Board, room: ControlRoom, thief: PrivateKey
) -> None:
    """It would make every device refuse the repository."""
    root = room.new_root(room.roots[0], publishers=(room.publisher.public, thief.public))
    with pytest.raises((Unverified, Malformed)):
        room.publications.replace_root(root, actor=Actor("thief"))
    room.rotate(publishers=(room.publisher.public, thief.public))
    assert thief.public in board.refresh().publishers
