"""Slow retrieval attack (TUF specification, 1.5.2).

The attacker answers a byte now and then, so that a device never ends a question and never notices
that anything is wrong. He wants it to hear nothing new, and its agent to hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from edgefleet_agent.adapters import tuf_client
from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import TransientError
from tests.attacks.ground import Behaviour, Board, ControlRoom

PATIENCE_S = 1.0


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Ends what still drips; a document may take a second in these tests, not thirty."""
    monkeypatch.setattr(tuf_client, "TOTAL_S", PATIENCE_S)
    event = threading.Event()
    yield event
    event.set()


def slow_body(stop: threading.Event) -> Behaviour:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.05):
            handler.wfile.write(b"{")

    return drip


def slow_head(stop: threading.Event) -> Behaviour:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not stop.wait(0.05):
            handler.wfile.write(b"z")

    return drip


def silence(stop: threading.Event) -> Behaviour:
    def wait(handler: BaseHTTPRequestHandler) -> None:
        stop.wait(30)

    return wait


@pytest.mark.parametrize("behaviour", [slow_body, slow_head, silence])
def test_who_answers_too_slowly_is_given_up_and_asked_again(
    board: Board, room: ControlRoom, stop: threading.Event, behaviour: Callable[..., Behaviour]
) -> None:
    room.release(2)
    room.behave = behaviour(stop)
    known, began = board.keeper.trust, time.monotonic()
    assert board.ask() == known  # it is trouble, no lie: what was known holds until it ends
    assert time.monotonic() - began < 20 * PATIENCE_S
    stop.set()
    room.behave = None
    assert board.refresh().lists("digits", 2, sha256(b"bundle 2"))


def test_one_slow_address_does_not_keep_the_next_one_from_being_asked(
    board: Board, room: ControlRoom, stop: threading.Event
) -> None:
    """The order names a shelf that drips; the repository of the enrolment answers."""
    room.release(2)
    drip = slow_body(stop)

    def only_there(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/slow/"):
            drip(handler)
            return
        found = room.serve(handler.path.lstrip("/"))
        handler.send_response(404 if found is None else 200)
        handler.end_headers()
        handler.wfile.write(found or b"")

    room.behave = only_there
    assert board.ask(f"{room.url}/slow").lists("digits", 2, sha256(b"bundle 2"))


def test_a_repository_in_trouble_is_asked_again_later(board: Board, room: ControlRoom) -> None:
    """Trouble is not an attack: what is known holds, and nothing is refused for it."""
    known = board.keeper.trust
    room.release(2)
    room.behave = lambda handler: handler.send_error(503)
    assert board.ask() == known
    room.now += 3 * 86_400
    with pytest.raises(TransientError):
        board.ask()
    room.behave = None
    room.publications.keep_fresh()
    assert board.refresh().lists("digits", 2, sha256(b"bundle 2"))
