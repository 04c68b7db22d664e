"""Webhooks, against a real HTTP server that takes, refuses, or is not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_fleet import webhooks as core
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.services import Services
from edgefleet_fleet.webhooks import Webhook
from tests.fleet.stage import ME, Clock, Stage

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "webhooks.md"
HOOK = Webhook("chat", "https://x.example", "whsec_AAAA", ("rollout.*",), 0, "me", 0)


@dataclass
class Receiver:
    """What came, and what is answered next."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _headers, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            status, headers = found.answers.pop(0) if found.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/fleet"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def drain(services: Services) -> None:
    while services.webhooks.send_due():
        pass


def test_what_happens_is_told_in_order_and_signed_as_the_guide_says(
    stage: Stage, services: Services, receiver: Receiver
) -> None:
    hook = services.webhooks.add("chat", receiver.url, ("rollout.*",), actor=ME)
    stage.devices("a", "b")
    stage.roll_out(1, canaries=("a",))
    stage.fail("a")
    drain(services)
    assert receiver.types == ["rollout.begin", "rollout.paused"]
    code = GUIDE.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    names: dict[str, object] = {}
    exec(code, names)
    is_ours = names["is_ours"]
    assert callable(is_ours)
    for headers, body in receiver.got:
        assert is_ours(hook.secret, headers, body)
        assert not is_ours(hook.secret, headers, body + b" ")
    data = json.loads(receiver.got[1][1])["data"]
    assert (data["fleet"], data["who"]) == ("demo", "fleet")
    assert data["detail"] == "wave 1 failed (gate): among canaries, 1 of 1 devices failed"
    assert services.webhooks.send_due() == 0


def test_what_is_refused_comes_again_with_the_same_id_and_nothing_overtakes_it(
    stage: Stage, services: Services, receiver: Receiver, clock: Clock
) -> None:
    services.webhooks.add("chat", receiver.url, ("rollout.*", "device.enrol"), actor=ME)
    receiver.answers = [(503, {"retry-after": "40"}), (302, {"location": receiver.url})]
    stage.devices("a")
    stage.roll_out(1)
    drain(services)
    assert len(receiver.got) == 1
    clock.now += 39
    drain(services)
    assert len(receiver.got) == 1  # it was asked to wait
    clock.now += 1
    drain(services)
    assert len(receiver.got) == 2  # and a redirect is no answer
    clock.now += 30
    drain(services)
    ids = [headers["webhook-id"] for headers, _body in receiver.got]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert receiver.types[2:] == ["device.enrol", "rollout.begin"]
    (found,) = services.webhooks.list()
    assert (found.attempts, found.failing_since, found.last_error) == (0, None, "")


def test_an_address_that_is_gone_for_days_stops_and_goes_on_where_it_was(
    stage: Stage, services: Services, receiver: Receiver, clock: Clock
) -> None:
    services.webhooks.add("chat", receiver.url, ("rollout.*",), actor=ME)
    stage.devices("a")
    stage.roll_out(1)
    receiver.answers = [(500, {})] * 1000
    attempts = 0
    while not services.webhooks.list()[0].stopped:
        services.webhooks.send_due()
        clock.now += 3600
        attempts += 1
    assert 70 < attempts < 76
    services.webhooks.send_due()
    assert len(receiver.got) == attempts
    receiver.answers = []
    services.webhooks.resume("chat", actor=ME)
    drain(services)
    assert receiver.types[-1] == "rollout.begin"


def test_what_another_process_has_in_hand_is_not_sent_beside_it(
    stage: Stage, services: Services, receiver: Receiver, clock: Clock
) -> None:
    services.webhooks.add("chat", receiver.url, ("rollout.*",), actor=ME)
    stage.devices("a")
    stage.roll_out(1)
    with services.room.store.begin() as tx:
        (found,) = tx.webhooks.due(clock.now)
        leased = Webhook(**{**vars_of(found), "next_at": clock.now + core.LEASE_S})
        assert tx.webhooks.keep(found, leased)
        assert not tx.webhooks.keep(found, leased)
    drain(services)
    assert receiver.got == []
    clock.now += core.LEASE_S  # it died
    drain(services)
    assert receiver.types == ["rollout.begin"]


def vars_of(found: Webhook) -> dict[str, object]:
    return {name: getattr(found, name) for name in Webhook.__slots__}


def test_a_server_that_is_not_there_is_said(services: Services, stage: Stage) -> None:
    services.webhooks.add("gone", "http://127.0.0.1:9/", ("*",), actor=ME)
    stage.devices("a")
    drain(services)
    (found,) = services.webhooks.list()
    assert found.last_error.startswith("not reached")


def test_names_and_addresses_are_checked(services: Services) -> None:
    services.webhooks.add("chat", "https://x.example/a", ("*",), actor=ME)
    with pytest.raises(Conflict):
        services.webhooks.add("chat", "https://x.example/b", ("*",), actor=ME)
    for url in ("ftp://x", "https://", "https://user:word@x.example"):
        with pytest.raises(Malformed):
            services.webhooks.add("other", url, ("*",), actor=ME)
    services.webhooks.remove("chat", actor=ME)
    with pytest.raises(NotFound):
        services.webhooks.remove("chat", actor=ME)


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=200))
def test_waits_grow_up_to_an_hour_and_it_stops_after_three_days_only(pauses: list[int]) -> None:
    now, hook = 1_000_000, HOOK
    first = now
    for pause in pauses:
        hook = core.failed(hook, "no", now=now)
        assert 5 <= hook.next_at - now <= 3600
        assert hook.stopped == (now - first >= core.STOP_AFTER_S)
        now += pause
    assert core.taken(hook, 7).cursor == 7
    assert not core.resumed(hook).stopped
