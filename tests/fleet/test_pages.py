"""The pages: who gets in, what is shown, and that nothing a device says becomes HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgefleet_contract.bundle import Digest
from edgefleet_contract.messages import render
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason, explain
from edgefleet_contract.reported import Presence
from edgefleet_contract.topics import Channel
from edgefleet_fleet.api import create_app
from edgefleet_fleet.dashboard.figures import report_rows
from edgefleet_fleet.dashboard.sparkline import sparkline
from edgefleet_fleet.doctor import SILENT_S
from edgefleet_fleet.services import Services
from tests.fleet.device import event_of, model_sample, reported_of, system_sample
from tests.fleet.stage import TOKEN, Clock, Stage
from tests.fleet.web import Web, serving

HTML = {"Accept": "text/html"}
ROOM = Path(__file__).parents[2] / "fleet" / "edgefleet_fleet" / "dashboard"


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        yield web


@pytest.fixture
def inside(http: Web) -> Web:
    http.get(f"/?token={TOKEN}")
    return http


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(
    http: Web,
) -> None:
    answer = http.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert http.get("/").status_code == 200
    assert http.get("/api/v1/devices").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/rollouts", "/bundles", "/devices", "/groups", "/devices/a", "/?token=wrong"]
)
def test_without_a_session_a_page_is_the_way_in(http: Web, path: str) -> None:
    answer = http.get(path, headers=HTML)
    assert answer.status_code == 401
    assert "operator.token" in answer.text
    assert '<form class="login card" method="post" action="/login">' in answer.text
    assert ("not known here" in answer.text) == ("wrong" in path)


def test_the_form_lets_in_without_a_script(http: Web) -> None:
    assert http.get("/login", headers=HTML).status_code == 200
    answer = http.post("/login", data={"token": f" {TOKEN} "})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert http.get("/").status_code == 200
    assert "Log out" in http.get("/bundles").text
    assert http.post("/logout").headers["location"] == "/login"
    assert http.get("/").status_code == 401
    assert http.post("/login", data={"token": "x" * 5000}).status_code == 422


def test_a_page_loads_nothing_from_elsewhere(inside: Web) -> None:
    answer = inside.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    for file in [*ROOM.rglob("*.html"), *ROOM.rglob("*.css"), *ROOM.rglob("*.js")]:
        text = file.read_text("utf-8")
        assert re.search(r"(src|href|url|fetch)\W+https?://", text) is None, file
        assert " style=" not in text, file  # the policy forbids it
        assert re.search(r"\son\w+=", text) is None, file
    for name in ("page.css", "refresh.js", "icon.svg"):
        assert inside.get(f"/static/{name}").status_code == 200


def test_the_overview_shows_what_the_fleet_does(inside: Web, stage: Stage) -> None:
    stage.devices("pi-1", "pi-2")
    stage.roll_out(1)
    stage.commit("pi-1")
    stage.take("pi-1", Channel.TELEMETRY_SYSTEM, render(system_sample("pi-1")))
    stage.take("pi-1", Channel.TELEMETRY_MODEL, render(model_sample("pi-1")))
    text = inside.get("/").text
    for shown in ("pi-1", "pi-2", "@1", "committed", "running", "52 °C", "25%", "2.40 ms", "1,234"):
        assert shown in text, shown


def test_the_overview_names_the_devices_that_want_attention(
    inside: Web, stage: Stage, clock: Clock
) -> None:
    stage.devices("back", "bad", "gone", "well")
    stage.roll_out(1, max_failures=4)
    order = stage.order("back")
    assert order is not None
    stage.say("back", order, Phase.ROLLED_BACK, Reason.PROBATION_FAILED)
    stage.fail("bad", Reason.GOLDEN_MISMATCH)
    stage.commit("well")
    clock.now += SILENT_S + 1
    inside.get(f"/?token={TOKEN}")  # the session was over before
    for name in ("back", "bad", "well"):
        stage.take(name, Channel.ONLINE, render(Presence(name, "boot", True, "0.1.0", 1)))
    page = inside.get("/").text
    table = page[page.index("Wants attention") : page.index("Heard last")]
    assert re.findall(r'href="/devices/(\w+)"', table) == ["bad", "back", "gone"]
    assert explain(Reason.GOLDEN_MISMATCH) in table
    meant = {unescape(to): inside.get(f"/devices?to={to}").text for to in links(page)}
    assert len(meant) == 4  # three troubles, and the model that runs
    for shown, name in zip(meant.values(), ("bad", "back", "gone", "well"), strict=True):
        assert re.findall(r'href="/devices/(\w+)"', shown) == [name]


def test_the_overview_names_what_is_quarantined(inside: Web, stage: Stage) -> None:
    stage.devices("a")
    stage.roll_out(1)
    order = stage.order("a")
    assert order is not None
    kept = (order.targets[0].bundle_sha256, Digest("ab" * 32))
    told = replace(reported_of("a", order, Phase.COMMITTED, ()), quarantined=kept)
    stage.take("a", Channel.REPORTED, render(told))
    assert "digits@1, abababababab" in inside.get("/").text


def links(page: str) -> list[str]:
    """The filters that a page links to, as they stand in the addresses."""
    return list(dict.fromkeys(re.findall(r'href="/devices\?to=([^"&]*)"', page)))


def test_the_overview_says_what_rollouts_that_go_on_wait_for(inside: Web, stage: Stage) -> None:
    stage.devices("a", "b")
    first = stage.roll_out(1, draft=True, to="id=a")
    second = stage.roll_out(1, model="faces", canaries=["b"], hold_after=[1])
    stage.commit("b")
    page = inside.get("/").text
    assert re.findall(r'href="/rollouts/([^"]+)"', page) == [second, first]
    assert "Waits for a person, who starts it." in page
    assert "Waits for a person, who opens wave 2 of 2." in page
    inside.post(f"/api/v1/rollouts/{second}/abort")
    inside.post(f"/api/v1/rollouts/{first}/start")
    assert f"/rollouts/{second}" not in inside.get("/").text
    stage.commit("a")
    assert "Last rollout" in inside.get("/").text


def test_the_devices_are_given_in_pages_and_by_the_filters_of_the_command_line(
    inside: Web, stage: Stage
) -> None:
    names = [f"pi-{number}" for number in range(5)]
    stage.devices(*names)
    inside.put("/api/v1/groups/odd", json={"filter": "id in (pi-1, pi-3)"})
    found, path = [], "/devices?limit=2"
    for _ in range(3):
        page = inside.get(path).text
        found += re.findall(r'href="/devices/([^"]+)"', page)
        more = re.search(r'href="(/devices\?[^"]+)">next page', page)
        path = unescape(more[1]) + "&limit=2" if more else ""
    assert (found, path) == (names, "")
    page = inside.get("/devices?to=group:odd and not id=pi-3").text
    assert re.findall(r'href="/devices/([^"]+)"', page) == ["pi-1"]
    assert 'value="group:odd and not id=pi-3"' in page
    # One that is none is said beside what was typed.
    answer = inside.get("/devices", params={"to": 'hw="<b'}, headers=HTML)
    assert answer.status_code == 422
    assert 'value="hw=&#34;&lt;b"' in answer.text
    assert "character" in answer.text
    assert inside.get("/devices?after=nonsense", headers=HTML).status_code == 422


def test_a_group_shows_who_is_in_it_and_the_rollouts_to_it(inside: Web, stage: Stage) -> None:
    assert "fleet groups create" in inside.get("/groups").text
    stage.devices("a", "b", "c")
    inside.put("/api/v1/groups/ab", json={"filter": "id in (a, b)", "about": "the <first>"})
    inside.put("/api/v1/groups/none", json={"filter": "hw=none"})
    to_it, _other = stage.roll_out(1, to="group:ab"), stage.roll_out(1, model="faces", to="id=c")
    text = inside.get("/groups").text
    assert "the &lt;first&gt;" in text
    assert re.findall(r'<td class="n">(\d+)</td>', text) == ["2", "0"]
    page = inside.get("/groups/ab").text
    assert re.findall(r'href="/devices/(\w+)"', page) == ["a", "b"]
    assert re.findall(r'href="/rollouts/([^"]+)"', page) == [to_it]
    assert inside.get("/groups/other", headers=HTML).status_code == 404


def test_the_devices_of_a_rollout_are_given_in_pages_and_by_outcome(
    inside: Web, stage: Stage
) -> None:
    stage.devices("a", "b", "c")
    rollout = stage.roll_out(1, canaries=["c"], hold_after=[1])
    stage.commit("c")
    page = inside.get(f"/rollouts/{rollout}?limit=2").text
    assert "<span>1/1</span>" in page
    assert "<span>0/2</span>" in page
    assert re.findall(r'href="/devices/(\w+)"', page) == ["c", "a"]
    more = re.search(r'href="([^"]+)">next page', page)
    assert more is not None
    assert re.findall(r'href="/devices/(\w+)"', inside.get(unescape(more[1])).text) == ["b"]
    for outcome, names in (("good", ["c"]), ("pending", ["a", "b"]), ("asked", [])):
        page = inside.get(f"/rollouts/{rollout}?outcome={outcome}").text
        assert re.findall(r'href="/devices/(\w+)"', page) == names


def test_a_device_and_a_rollout_show_why_it_was_refused(inside: Web, stage: Stage) -> None:
    stage.devices("pi-1")
    rollout = stage.roll_out(1)
    stage.fail("pi-1", Reason.GOLDEN_MISMATCH)
    for path in (f"/rollouts/{rollout}", "/devices/pi-1", "/rollouts", "/"):
        answer = inside.get(path)
        assert answer.status_code == 200
        assert explain(Reason.GOLDEN_MISMATCH) in answer.text or "golden_mismatch" in answer.text
    assert "Resume" in inside.get(f"/rollouts/{rollout}").text


def test_bundles_show_their_signature(inside: Web, stage: Stage) -> None:
    stage.bundle(1)
    text = inside.get("/bundles").text
    assert "digits-1" in text
    assert "signed" in text


def test_pages_of_what_is_not_there_say_so(inside: Web) -> None:
    for path in ("/devices/none", "/rollouts/none", "/nothing"):
        answer = inside.get(path, headers=HTML)
        assert (answer.status_code, "nothing of this name" in answer.text) == (404, True)


def test_what_a_device_says_stays_text(inside: Web, stage: Stage) -> None:
    stage.devices("pi-1")
    rollout = stage.roll_out(1)
    order = stage.order("pi-1")
    assert order is not None
    evil = '<script>alert(1)</script>" onload="x'
    event = event_of("pi-1", order, Phase.FAILED, Reason.INTERNAL)
    stage.take("pi-1", Channel.EVENT, render(replace(event, detail=evil)))
    state = reported_of("pi-1", order, Phase.FAILED, (), Reason.INTERNAL)
    stage.take("pi-1", Channel.REPORTED, render(replace(state, detail=evil)))
    for path in ("/devices/pi-1", f"/rollouts/{rollout}", "/"):
        text = inside.get(path).text
        scripts = Scripts()
        scripts.feed(text)
        assert scripts.found == ["/static/refresh.js"]
        assert "&lt;script&gt;" in text


class Scripts(HTMLParser):
    """The scripts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.found.append(dict(attrs).get("src"))
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_a_sparkline_stays_in_its_box_and_escapes_its_label() -> None:
    svg = sparkline([1.0, 5.0, 3.0], label='<"CPU">')
    points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", svg)
    assert all(0 <= float(x) <= 240 and 0 <= float(y) <= 48 for x, y in points)
    assert '<"CPU">' not in svg
    assert "svg" not in sparkline([1.0], label="CPU")


@pytest.mark.parametrize("report", [None, [], {}, {"variants": 3}, {"variants": ["x"]}])
def test_a_report_that_says_nothing_shows_nothing(report: object) -> None:
    assert report_rows(report) == []


def test_a_report_shows_the_figures_that_it_has() -> None:
    (row,) = report_rows(
        {"variants": [{"name": "v", "size": 9400, "accuracy": {"value": 0.98}, "measured": 3}]}
    )
    assert (row["name"], row["size"], row["accuracy"], row["p50"]) == ("v", "9.4 kB", "98.00%", "")


def test_a_rollout_has_the_buttons_of_what_can_be_done_with_it(stage: Stage, inside: Web) -> None:
    stage.devices("a", "b")

    def verbs(rollout: str) -> list[str]:
        page = inside.get(f"/rollouts/{rollout}").text
        found = re.findall(rf'data-post="/api/v1/rollouts/{rollout}/(\w+)"', page)
        for verb in found:  # a button that is shown is a route that there is
            assert inside.get(f"/api/v1/rollouts/{rollout}/{verb}").status_code == 405
        return found

    asked = stage.roll_out(1, approve_by="bo")
    assert verbs(asked) == ["approve", "deny"]
    draft = stage.roll_out(2, draft=True)
    assert verbs(draft) == ["start"]
    held = stage.roll_out(3, canaries=["a"], hold_after=[1])
    assert verbs(held) == ["pause", "abort", "revert"]
    stage.commit("a")
    assert verbs(held) == ["promote", "pause", "abort", "revert"]
    assert inside.post(f"/api/v1/rollouts/{held}/promote").status_code == 200
    assert inside.post(f"/api/v1/rollouts/{held}/pause").status_code == 200
    assert verbs(held) == ["resume", "abort", "revert"]
    assert inside.post(f"/api/v1/rollouts/{held}/revert").status_code == 200
    assert verbs(held) == []
