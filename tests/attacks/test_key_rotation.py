"""Key rotation (TUF specification, 5.3 and 6.1): every key is replaced while devices are out.

Not an attack by itself, but what every answer to a stolen key is made of. A device that was away
follows any number of roots, one by one; the attacker leaves some out, swaps them or makes his own.
"""

from __future__ import annotations

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import PeerError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.reasons import Reason
from tests.attacks.ground import Board, ControlRoom


def test_a_new_publisher_and_a_new_repository_key_are_followed(
    any_board: Board, room: ControlRoom
) -> None:
    fresh = PrivateKey.generate_p256()
    room.rotate(publishers=(room.publisher.public, fresh.public))
    room.publisher = fresh
    room.release(2)
    room.rotate(publishers=(fresh.public,), repository=PrivateKey.generate_ed25519())
    room.release(3)
    trust = any_board.refresh()
    assert trust.lists("digits", 3, sha256(b"bundle 3"))
    assert trust.publishers == (fresh.public,)
    assert trust.versions.root == 3
    assert any_board.seen.online == (room.online.public.id,)
    any_board.boot()
    assert any_board.keeper.trust == trust


def test_all_root_keys_are_replaced_and_the_old_ones_are_worth_nothing(
    any_board: Board, room: ControlRoom
) -> None:
    old, new = room.roots, [PrivateKey.generate_ed25519() for _ in range(3)]
    room.rotate(*old[:2], *new[:2], roots=tuple(key.public for key in new))
    assert any_board.refresh().versions.root == 2
    thief = PrivateKey.generate_p256()
    room.lies["3.root.json"] = room.new_root(*old, publishers=(thief.public,))
    assert any_board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    room.rotate(*new[:2])
    assert any_board.refresh().versions.root == 3


def test_a_device_that_was_away_follows_a_chain_of_roots(
    any_board: Board, room: ControlRoom
) -> None:
    """Ten ceremonies, each by keys that only the one before names."""
    for _ in range(10):
        new = [PrivateKey.generate_ed25519() for _ in range(3)]
        room.rotate(*room.roots[:2], *new[:2], roots=tuple(key.public for key in new))
        room.roots = new
    room.release(2)
    assert any_board.refresh().versions.root == 11


@pytest.mark.parametrize("missing", [2, 3])
def test_a_chain_with_a_link_left_out_leads_nowhere(
    board: Board, room: ControlRoom, missing: int
) -> None:
    first = room.online
    for _ in range(3):
        room.rotate(repository=PrivateKey.generate_ed25519())
    room.lies[f"{missing}.root.json"] = None
    assert board.refused() is Reason.METADATA_INVALID
    assert board.seen.online == (first.public.id,)
    room.lies.clear()
    assert board.refresh().versions.root == 4


def test_roots_in_another_order_are_refused(board: Board, room: ControlRoom) -> None:
    for _ in range(2):
        room.rotate()
    documents = room.mirror()
    room.lies = {"2.root.json": documents["3.root.json"], "3.root.json": documents["2.root.json"]}
    assert board.refused() is Reason.METADATA_INVALID


def test_a_root_must_be_signed_by_the_old_and_by_the_new_keys(
    board: Board, room: ControlRoom
) -> None:
    new = [PrivateKey.generate_ed25519() for _ in range(3)]
    named = tuple(key.public for key in new)
    for signers in (room.roots[:2], new[:2], [room.roots[0], new[0]]):
        room.lies["2.root.json"] = room.new_root(*signers, roots=named)
        with pytest.raises(PeerError) as caught:
            board.refresh()
        assert caught.value.reason is Reason.METADATA_INVALID
    room.lies.clear()
    room.rotate(*room.roots[:2], *new[:2], roots=named)
    assert board.refresh().versions.root == 2
