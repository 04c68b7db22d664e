"""The client against the served API: the guide followed, pages, keys, patience."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_contract.errors import Malformed, TransientError
from edgefleet_contract.throttle import Limit
from edgefleet_fleet.api import create_app
from edgefleet_fleet.budgets import Budgets
from edgefleet_fleet.client import Client, new_key
from edgefleet_fleet.errors import Changed, Conflict, Denied, Mismatch, NotFound
from edgefleet_fleet.services import Services
from tests.fleet.stage import TOKEN, Clock, Outbox, Stage
from tests.fleet.web import serving

GUIDE = Path(__file__).parents[2] / "docs/guides/fleet-api.md"


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    with serving(create_app(services)) as web:
        yield web.base


@pytest.fixture
def room(url: str) -> Iterator[Client]:
    with Client(url, TOKEN) as found:
        yield found


def test_the_guide_runs_as_it_stands(
    url: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.devices("pi-1", "pi-2")
    monkeypatch.setenv("FLEET_URL", url)
    monkeypatch.setenv("FLEET_TOKEN", TOKEN)
    pieces = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(pieces) == 4
    names: dict[str, object] = {}
    for piece in pieces:
        exec(compile(piece, str(GUIDE), "exec"), names)
    client = names["fleet"]
    assert isinstance(client, Client)
    client.close()
    said = capsys.readouterr().out
    assert "it was changed since it was read" in said
    assert "there is no device 'nobody' - fleet devices list" in said
    assert said.endswith("malformed\n")
    link = stage.services.room.link
    assert isinstance(link, Outbox)
    assert len(link.sent) == 1  # one ping, asked for twice


def test_pages_are_followed_and_filters_go_along(
    room: Client, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet_fleet.client._PAGE", 2)
    stage.devices(*"abcdefg")
    for name in "bdf":
        room.post(f"/devices/{name}/tags", {"tags": {"site": "hall3"}})
    assert [device["id"] for device in room.list("/devices")] == list("abcdefg")
    found = [device["id"] for device in room.list("/devices", to="tag.site=hall3", model=None)]
    assert found == ["b", "d", "f"]
    assert len(list(room.list("/audit", what="device.tag"))) == 3


def test_refusals_are_exceptions_by_who_can_do_something(room: Client, url: str) -> None:
    with pytest.raises(NotFound, match="no group"):
        room.get("/groups/none")
    with pytest.raises(Malformed, match="no cursor of devices"):
        room.get("/devices?after=WzFd")
    room.put("/groups/g", {"filter": "all"})
    with pytest.raises(Conflict, match="there is a group"):
        room.put("/groups/g", {"filter": "all"})
    with pytest.raises(Changed):
        room.delete("/groups/g", if_match='"other"')
    key = new_key()
    room.post("/claims", {"uses": 1}, key=key)
    with pytest.raises(Mismatch):
        room.post("/claims", {"uses": 2}, key=key)
    with pytest.raises(Denied), Client(url, "wrong") as stranger:
        stranger.get("/devices")


def test_too_many_calls_are_waited_for_as_long_as_there_is_patience(
    room: Client, url: str, services: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.access.budgets = Budgets(Limit(2, 1))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.now += 1

    monkeypatch.setattr("edgefleet_fleet.client.time.sleep", sleep)
    for _ in range(4):
        room.get("/devices")
    assert len(waits) == 2
    assert all(1 <= wait < 3 for wait in waits)  # never less than the control room said
    with Client(url, TOKEN, patience_s=0) as hasty, pytest.raises(TransientError) as refused:
        hasty.get("/devices")
    assert refused.value.retry_after_s == 1


def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_is_made_twice(
    url: str, stage: Stage
) -> None:
    stage.devices("a")
    host, port = url.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as door:
        worker = threading.Thread(target=lose_the_first_answer, args=(door, (host, int(port))))
        worker.start()
        with Client(f"http://127.0.0.1:{door.getsockname()[1]}", TOKEN) as client:
            given = client.post("/commands", {"kind": "ping", "device": "a"}, key=new_key())
        worker.join(10)
    link = stage.services.room.link
    assert isinstance(link, Outbox)
    assert len(link.sent) == 1
    assert [view["id"] for view in given["commands"]] == [c.id for c in stage.commands("a")]


def lose_the_first_answer(door: socket.socket, to: tuple[str, int]) -> None:
    """Pass two connections on, and close the first when its answer has come."""
    for is_lost in (True, False):
        client, _ = door.accept()
        with client, socket.create_connection(to) as server:
            asked = b""
            while b"\r\n\r\n" not in asked or len(asked) < needed(asked):
                asked += client.recv(65536)
            server.sendall(asked)
            answer = b""
            while b"\r\n\r\n" not in answer or len(answer) < needed(answer):
                answer += server.recv(65536)
            if not is_lost:
                client.sendall(answer)


def needed(raw: bytes) -> int:
    """How long a message of HTTP/1.1 is, by its Content-Length."""
    head, _, _ = raw.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\ncontent-length: (\d+)", head)
    return len(head) + 4 + (int(found[1]) if found else 0)
