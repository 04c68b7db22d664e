"""Mix-and-match attack (TUF specification, 1.5.2).

The attacker combines documents that each were honest at some time: new ones beside old ones, one
policy under another's name. He wants a device to see a state that the repository never was in.
"""

from __future__ import annotations

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import REVOKED_POLICY, RevokedPolicy, render_policy
from tests.attacks.ground import Board, ControlRoom


def numbers(documents: dict[str, bytes], role: str) -> list[str]:
    """The names of a role's documents, oldest first."""
    found = [name for name in documents if name.endswith(f".{role}.json")]
    return sorted(found, key=lambda name: int(name.partition(".")[0]))


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_an_old_document_among_new_ones_is_refused(
    any_board: Board, room: ControlRoom, role: str
) -> None:
    room.release(2)
    *_, old, new = numbers(room.mirror(), role)
    room.lies[new] = room.mirror()[old]
    assert any_board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    assert any_board.refresh().lists("digits", 2, sha256(b"bundle 2"))


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_new_document_among_old_ones_is_refused(
    any_board: Board, room: ControlRoom, role: str
) -> None:
    old = room.mirror()
    room.release(2)
    *_, before, after = numbers(room.mirror(), role)
    room.play_back({**old, before: room.mirror()[after]})
    assert any_board.refused() is Reason.METADATA_INVALID


def test_an_old_policy_under_the_new_ones_name_is_refused(
    any_board: Board, room: ControlRoom
) -> None:
    lenient = render_policy(RevokedPolicy())
    revoked = RevokedPolicy(floors={"digits": 2})
    room.publish({REVOKED_POLICY: render_policy(revoked)})
    name = f"targets/policy/{sha256(render_policy(revoked))}.revoked.json"
    assert name in room.mirror()
    room.lies[name] = lenient
    assert any_board.refused() is Reason.METADATA_INVALID
    room.lies.clear()
    assert any_board.refresh().revoked == revoked


def test_retained_messages_hold_the_policy_that_is_listed(
    any_board: Board, room: ControlRoom
) -> None:
    """Of several that were kept: an older one would make honest metadata look forged."""
    for floor in range(2, 8):
        policy = RevokedPolicy(floors={"digits": floor})
        room.publish({REVOKED_POLICY: render_policy(policy)})
        assert any_board.refresh().revoked == policy
