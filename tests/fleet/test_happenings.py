"""The history of a device: what stands in it, and how much of it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.commands import CommandResult, Kind, Outcome
from edgefleet_contract.enrolment import CertificateRequest
from edgefleet_contract.messages import render
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Presence
from edgefleet_contract.topics import Channel
from edgefleet_fleet.adapters.sql.store import Store
from edgefleet_fleet.api import create_app
from edgefleet_fleet.commands import Wish
from edgefleet_fleet.happenings import (
    LINK_S,
    Happening,
    HistoryKind,
    changes,
    of_audit,
    once_more,
)
from edgefleet_fleet.services import Services
from tests.fleet import inside
from tests.fleet.device import PI5, csr_of, event_of, new_key, reported_of, request_of
from tests.fleet.stage import ME, TOKEN, Clock, Stage
from tests.fleet.web import serving

ANEW = replace(
    PI5, kernel="6.12.1", engines={"onnxruntime": "1.21.0", "litert": "2.0"}, features=("asimd",)
)


def history(stage: Stage, *kinds: HistoryKind, device: str = "a") -> list[tuple[str, str, str]]:
    """Kind, word and detail of each entry, oldest first."""
    with stage.services.room.store.begin() as tx:
        entries = tx.history.page(device, limit=1000, kinds=kinds)
    return [
        (entry.kind.value, entry.told.what, entry.told.detail)
        for entry in reversed(entries)
        if isinstance(entry.told, Happening)
    ]


def presence(stage: Stage, *, online: bool, boot: str = "boot") -> None:
    found = Presence("a", boot, online, "0.1.0", 1)
    stage.take("a", Channel.ONLINE, render(found))


def test_what_the_service_learns_of_a_device_stands_in_its_history(
    stage: Stage, clock: Clock
) -> None:
    services, key = stage.services, new_key()
    claim = services.enrolment.make_claim(uses=1, hours=1, actor=ME)[1]
    services.enrolment.enrol(request_of(claim.render(), "a", key), address="")
    presence(stage, online=True)
    services.groups.tag("a", {"site": "hall3"}, [], actor=ME)
    stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    stage.commit("a")
    failed = reported_of("a", order, Phase.FAILED, (), Reason.GOLDEN_MISMATCH, able=ANEW)
    stage.take("a", Channel.REPORTED, render(replace(failed, quarantined=("ab" * 32,))))
    stage.take("a", Channel.REPORTED, render(failed))
    (row,) = services.commands.give(Wish(Kind.PING, device="a"), actor=ME)
    answer = CommandResult("a", "boot", 1, row.id, Kind.PING, Outcome.DONE)
    stage.take("a", Channel.RESPONSE, render(answer))
    clock.now += 60 * 86400
    request = CertificateRequest("a", csr_of(key, "a"))
    stage.take("a", Channel.ENROL_REQUEST, render(request))
    services.enrolment.revoke("a", actor=ME)
    found = history(stage)
    assert [(kind, what) for kind, what, _ in found] == [
        ("enrolment", "enrolled"),
        ("link", "online"),
        ("tags", "tagged"),
        ("inventory", "changed"),
        ("quarantine", "quarantined"),
        ("quarantine", "released"),
        ("command", "asked"),
        ("command", "done"),
        ("certificate", "renewed"),
        ("enrolment", "revoked"),
    ]
    details = dict(zip([what for _, what, _ in found], [text for *_, text in found], strict=True))
    assert details["changed"] == (
        "litert none -> 2.0, onnxruntime 1.20.0 -> 1.21.0, features +asimd, kernel none -> 6.12.1"
    )
    assert details["quarantined"] == "ab" * 8
    assert details["done"] == f"ping {row.id}"
    with services.room.store.begin() as tx:
        people = {
            e.told.what: e.told.who
            for e in tx.history.page("a", limit=99)
            if isinstance(e.told, Happening)
        }
    assert (people["tagged"], people["asked"], people["enrolled"]) == ("tester", "tester", "")
    assert (people["renewed"], people["online"]) == ("", "")


def test_a_device_that_comes_and_goes_has_one_entry_an_hour(stage: Stage, clock: Clock) -> None:
    stage.devices("a")
    for number in range(100):
        presence(stage, online=number % 2 == 0)
        clock.now += 60
    with stage.services.room.store.begin() as tx:
        entries = tx.history.page("a", limit=99, kinds=(HistoryKind.LINK,))
    told = [entry.told for entry in entries if isinstance(entry.told, Happening)]
    assert [(t.what, t.count) for t in reversed(told)] == [("offline", 60), ("offline", 40)]
    assert told[1].until - entries[1].received_at == 59 * 60
    assert history(stage, HistoryKind.ENROLMENT)


def test_an_agent_that_began_anew_is_told_from_one_that_said_so_twice(stage: Stage) -> None:
    stage.devices("a")
    presence(stage, online=True)
    presence(stage, online=True)
    assert len(history(stage, HistoryKind.LINK)) == 1
    presence(stage, online=True, boot="another")
    (found,) = history(stage, HistoryKind.LINK)
    assert found[1] == "restarted"


def test_no_kind_drives_out_another(stage: Stage, clock: Clock) -> None:
    room = stage.services.room
    room.config = replace(room.config, events_keep=3)
    stage.devices("a")
    stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    for seq in range(1, 6):
        step = event_of("a", order, Phase.DOWNLOADING, seq=seq)
        stage.take("a", Channel.EVENT, render(step))
    for number in range(20):
        stage.services.groups.tag("a", {"n": str(number)}, [], actor=ME)
        presence(stage, online=number % 2 == 0)
        clock.now += LINK_S
    with room.store.begin() as tx:
        kept = [entry.kind for entry in tx.history.page("a", limit=99)]
        steps = tx.history.events("a")
    assert [kept.count(kind) for kind in ("install", "tags", "link", "enrolment")] == [3, 3, 3, 1]
    assert [step.seq for step in steps] == [5, 4, 3]


def test_a_device_that_is_asked_again_says_so_there(stage: Stage, clock: Clock) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1, retries={"wait_s": 60})
    stage.fail("a", Reason.DOWNLOAD_FAILED)
    clock.now += 60
    stage.services.deployments.tick()
    assert history(stage, HistoryKind.ROLLOUT) == [
        ("rollout", "retrying", f"{rollout}: try 1 to fetch it failed, asked again in 60 s"),
        ("rollout", "asked again", f"{rollout}: try 2"),
    ]


def test_the_store_keeps_of_each_kind_the_newest(store: Store) -> None:
    with store.begin() as tx:
        tx.devices.enrol("a", key_id="k", serial="1", expires=1, at=1, capabilities=PI5)
        for at in range(5):
            tx.history.add("a", HistoryKind.TAGS, Happening(f"{at}"), at=at, keep=2)
            tx.history.add("a", HistoryKind.LINK, Happening(f"{at}"), at=at, keep=2)
        tx.history.add("a", HistoryKind.LINK, Happening("later"), at=LINK_S, keep=2)
        found = [
            (entry.kind, entry.told.what, entry.told.count, entry.told.until)
            for entry in tx.history.page("a", limit=9)
            if isinstance(entry.told, Happening)
        ]
        assert found == [
            (HistoryKind.LINK, "later", 1, 0),
            (HistoryKind.TAGS, "4", 1, 0),
            (HistoryKind.TAGS, "3", 1, 0),
            (HistoryKind.LINK, "4", 5, 4),
        ]
        assert tx.history.events("a") == ()
        newest = tx.history.page("a", limit=1)[0].number
        assert len(tx.history.page("a", limit=9, before=newest)) == 3
        assert len(tx.history.page("a", limit=9, since=4)) == 2


@given(st.integers(0, 10**6), st.integers(-10, 2 * LINK_S))
def test_entries_are_one_within_the_hour_and_never_where_a_clock_went_back(
    since: int, after: int
) -> None:
    both = once_more(Happening("online", count=3), since, Happening("offline"), since + after)
    assert (both is not None) == (0 <= after < LINK_S)
    if both is not None:
        assert (both.what, both.count, both.until) == ("offline", 4, since + after)


def test_what_did_not_change_is_not_said() -> None:
    assert changes(PI5, PI5) == ""
    assert changes(PI5, replace(PI5, os="Debian 13")) == "os Debian 12 -> Debian 13"
    assert len(changes(PI5, replace(PI5, engines={f"e{n}": "1" for n in range(99)}))) == 500


def test_an_audit_row_of_something_else_is_no_entry() -> None:
    assert of_audit("group.put", "", "ada") is None
    assert of_audit("command.ping", "c1", "ada") == (
        HistoryKind.COMMAND,
        Happening("asked", "ping c1", "ada"),
    )


@pytest.fixture
def told(stage: Stage, services: Services) -> Any:
    """A device with some history, behind the API."""
    stage.devices("a")
    presence(stage, online=True)
    presence(stage, online=False)
    services.groups.tag("a", {"site": "hall3"}, [], actor=ME)
    stage.roll_out(1)
    stage.commit("a")
    with serving(create_app(services)) as web:
        web.headers["Authorization"] = f"Bearer {TOKEN}"
        yield web


def test_the_api_the_command_line_and_the_page_show_it_by_kind(told: Any) -> None:
    where = "/api/v1/devices/a/events"
    kinds = [entry["kind"] for entry in told.get(where).json()["events"]]
    assert kinds == ["install", "tags", "link", "enrolment"]
    two = told.get(f"{where}?kind=link&kind=tags&limit=1").json()
    assert [entry["kind"] for entry in two["events"]] == ["tags"]
    assert "kind=link&kind=tags" in told.get(f"{where}?kind=link&kind=tags&limit=1").headers["Link"]
    rest = told.get(f"{where}?kind=link&kind=tags&limit=1&after={two['next']}").json()
    (link,) = rest["events"]
    assert (link["what"], link["count"], link["phase"], link["models"]) == ("offline", 2, None, [])
    assert told.get(f"{where}?kind=weather").status_code == 422
    words = ("devices", "events", "a", "--kind", "link", "--kind", "tags")
    done = inside.fleet(*words, FLEET_URL=told.base, FLEET_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert "link offline (2 times)" in done.stdout
    assert "tags tagged  site=hall3, by tester" in done.stdout
    assert "committed" not in done.stdout
    done = inside.fleet("devices", "show", "a", FLEET_URL=told.base, FLEET_TOKEN=TOKEN)
    assert "enrolment enrolled" in done.stdout
    assert "digits@1 committed" in done.stdout
    whole, some = told.get("/devices/a").text, told.get("/devices/a?kind=link").text
    assert "2 times" in some
    assert "site=hall3, by tester" in whole
    assert "site=hall3, by tester" not in some
    assert json.loads(told.get(f"{where}?kind=install").text)["events"][0]["seq"] == 1
