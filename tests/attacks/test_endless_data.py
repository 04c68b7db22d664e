"""Endless data attack (TUF specification, 1.5.2).

The attacker answers a question for a document with bytes that never end, over the network, in a
retained message, or by a file on a stick. He wants to fill the memory or the disk of a board.
"""

from __future__ import annotations

import os
import tracemalloc
from http.server import BaseHTTPRequestHandler

import pytest

from edgefleet_agent.adapters.tuf_client import CONFIG
from edgefleet_agent.keeper import STICK
from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.trust import release_path
from tests.attacks.ground import Board, ControlRoom

MIB = 1 << 20
DOCUMENTS = ("2.root.json", "timestamp.json", "snapshot.json", "targets.json", "revoked.json")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_an_answer_without_an_end_is_cut_off(
    board: Board, room: ControlRoom, document: str
) -> None:
    """Whichever document it is, all others are honest; the next honest answer is taken."""
    room.release(2)
    sent = [0]

    def endless(handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.lstrip("/")
        handler.send_response(200 if room.serve(name) or name.endswith(document) else 404)
        handler.end_headers()
        if not name.endswith(document):
            handler.wfile.write(room.serve(name) or b"")
            return
        while True:
            sent[0] += handler.wfile.write(b"{" * 65_536)

    room.behave = endless
    tracemalloc.start()
    with pytest.raises((PeerError, TransientError)):
        board.refresh()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < sent[0] < 16 * MIB  # what the sockets' buffers hold, and one cap
    assert peak < 8 * MIB
    room.behave = None
    assert board.refresh().lists("digits", 2, sha256(b"bundle 2"))


@pytest.mark.parametrize("document", DOCUMENTS[1:])
def test_a_file_without_an_end_on_a_stick_is_not_read_to_it(
    board: Board, room: ControlRoom, document: str
) -> None:
    """A sparse file: 8 TiB that take no room."""
    board.way = "stick"
    board.boot()
    room.release(2)
    board._listen()
    for path in (board.folder / STICK).rglob(f"*{document}"):
        os.truncate(path, 2**43)
    tracemalloc.start()
    with pytest.raises((PeerError, TransientError)):
        board.ask()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MIB
    assert board.refresh().lists("digits", 2, sha256(b"bundle 2"))


def test_a_retained_message_that_is_too_large_is_refused(board: Board, room: ControlRoom) -> None:
    board.way = "mqtt"
    board.boot()
    room.release(2)
    room.lies["timestamp.json"] = b" " * MIB
    with pytest.raises(PeerError):
        board.refresh()
    room.lies.clear()
    assert board.refresh().lists("digits", 2, sha256(b"bundle 2"))


def test_what_an_honest_repository_may_have_to_say_is_not_cut_off(
    any_board: Board, room: ControlRoom
) -> None:
    """Years of releases: half a megabyte of targets, by every way."""
    room.publish({release_path("digits", version): b"bundle" for version in range(2, 4_000)})
    assert len(room.current.targets) > 500_000
    assert any_board.refresh().lists("digits", 3_999, sha256(b"bundle"))


def test_a_chain_of_roots_without_an_end_is_followed_for_a_while(
    board: Board, room: ControlRoom
) -> None:
    """Who holds two root keys may send a device through 64 roots at each refresh, and no more."""
    for _ in range(CONFIG.max_root_rotations + 2):
        room.rotate()
    assert board.refresh().versions.root == 1 + CONFIG.max_root_rotations
