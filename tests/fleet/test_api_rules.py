"""What all routes have in common: pages, keys, conditions, limits, and the document of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest

from edgefleet_contract.errors import Malformed, TransientError
from edgefleet_contract.throttle import Limit
from edgefleet_fleet.adapters.sql.store import Store
from edgefleet_fleet.api import create_app
from edgefleet_fleet.api_answers import MAX_BODY
from edgefleet_fleet.api_common import KEYED
from edgefleet_fleet.api_resources import RESOURCES
from edgefleet_fleet.budgets import Budgets
from edgefleet_fleet.errors import Conflict
from edgefleet_fleet.guards import KEPT_S, Once
from edgefleet_fleet.paging import cut, parse_cursor, render_cursor
from edgefleet_fleet.roles import Role
from edgefleet_fleet.services import Services
from tests.fleet.stage import ME, TOKEN, Clock, Outbox, Stage
from tests.fleet.web import Web, serving

AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        web.headers.update(AUTH)
        yield web


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def test_a_cursor_is_its_own_lists_alone() -> None:
    text = render_cursor("bundles", (7, "a"))
    assert parse_cursor("bundles", text, int, str) == (7, "a")
    for noun, kinds in (("claims", (int, str)), ("bundles", (int,)), ("bundles", (str, str))):
        with pytest.raises(Malformed, match=f"no cursor of {noun}"):
            parse_cursor(noun, text, *kinds)  # type: ignore[arg-type]
    for wrong in ("x", "é", text[:-1], "W10", render_cursor("bundles", (2**70, "a"))):
        with pytest.raises(Malformed):
            parse_cursor("bundles", wrong, int, str)


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_show_each_row_once_whatever_comes_and_goes(newest_first: bool) -> None:
    rows = {number: f"row {number}" for number in range(10, 100, 10)}
    seen: list[int] = []
    after = None
    while True:
        page = cut(rows, lambda n: (n,), limit=2, after=after, newest_first=newest_first)
        seen += page.rows
        if page.last is None:
            break
        after = page.last
        rows.pop(page.rows[0])  # one that was given goes, and new ones come at both ends
        rows[5 - len(seen)] = rows[200 + len(seen)] = "new"
    old = [number for number in seen if number in range(10, 100, 10)]
    assert sorted(old) == list(range(10, 100, 10))
    assert len(seen) == len(set(seen))


def test_a_list_comes_in_pages_that_name_the_next(http: Web, stage: Stage) -> None:
    stage.devices("a", "b", "c")
    first = http.get("/api/v1/devices?limit=2&to=not id=z")
    assert [device["id"] for device in first.json()["devices"]] == ["a", "b"]
    target = first.links["next"]["url"]
    assert target.startswith("/api/v1/devices?to=not+id%3Dz&limit=2&after=")
    stage.devices("aa", "d")  # while somebody is reading
    second = http.get(target)
    assert [device["id"] for device in second.json()["devices"]] == ["c", "d"]
    assert (second.json()["next"], "link" in second.headers) == (None, False)
    for wrong in ("limit=0", "limit=1001", "after=x", f"after={render_cursor('groups', ('a',))}"):
        assert http.get(f"/api/v1/devices?{wrong}").status_code == 422


def test_lists_are_filtered_where_that_makes_sense(http: Web, stage: Stage, clock: Clock) -> None:
    stage.devices("a")
    old = stage.roll_out(1)
    http.post(f"/api/v1/rollouts/{old}/abort")
    clock.now += 100
    stage.roll_out(1, model="letters")
    http.post("/api/v1/claims", json={"uses": 1})

    def ids(query: str, noun: str, field: str) -> list[Any]:
        return [row[field] for row in http.get(f"/api/v1/{noun}?{query}").json()[noun]]

    assert ids("", "rollouts", "id") == ["letters-1-r2", "digits-1-r1"]
    assert ids("state=aborted", "rollouts", "id") == ["digits-1-r1"]
    assert ids("model=letters", "rollouts", "id") == ["letters-1-r2"]
    assert ids(f"since={clock.now}", "rollouts", "id") == ["letters-1-r2"]
    assert ids("model=digits", "bundles", "name") == ["digits-1"]
    assert ids(f"since={clock.now}", "bundles", "name") == ["letters-1"]
    assert ids("what=rollout.begin&limit=1", "audit", "subject") == ["letters-1-r2"]
    assert set(ids("who=tester", "audit", "who")) == {"tester"}
    assert http.get("/api/v1/rollouts?state=odd").status_code == 422


def test_a_request_with_a_key_happens_once(http: Web, stage: Stage, clock: Clock) -> None:
    stage.devices("a", "b")
    body = {"kind": "ping", "to": "all"}
    first = http.post("/api/v1/commands", json=body, headers=keyed('"k 1"'.replace(" ", "-")))
    again = http.post("/api/v1/commands", data=json.dumps(body, indent=4), headers=keyed("k-1"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    link = stage.services.room.link
    assert isinstance(link, Outbox)
    assert len(link.sent) == 2  # one for each device
    other = http.post("/api/v1/commands", json={**body, "seconds": 9}, headers=keyed("k-1"))
    assert (other.status_code, other.headers["content-type"]) == (422, "application/problem+json")
    assert http.post("/api/v1/commands", json=body, headers=keyed("a\tb")).status_code == 422
    clock.now += KEPT_S + 1
    later = http.post("/api/v1/commands", json=body, headers=keyed("k-1"))
    assert (later.status_code, later.content == first.content) == (201, False)


def test_a_key_is_its_users_own_and_a_refusal_keeps_none(
    http: Web, stage: Stage, services: Services
) -> None:
    body = {"kind": "ping", "device": "a"}
    assert http.post("/api/v1/commands", json=body, headers=keyed("k")).status_code == 404
    stage.devices("a")
    assert http.post("/api/v1/commands", json=body, headers=keyed("k")).status_code == 201
    _, token = services.access.users.add("ada", Role.OPERATOR, days=None, actor=ME)
    hers = keyed("k") | {"Authorization": f"Bearer {token}"}
    answer = http.post("/api/v1/commands", json=body, headers=hers)
    assert (answer.status_code, "idempotency-replayed" in answer.headers) == (201, False)


@pytest.mark.parametrize(
    ("path", "body", "secret"),
    [
        ("/claims", {"uses": 1}, "claim"),
        ("/users", {"name": "ada", "role": "viewer"}, "token"),
        ("/webhooks", {"name": "chat", "url": "https://example.org/"}, "secret"),
    ],
)
def test_a_secret_is_said_once_and_is_not_kept_for_a_key(
    http: Web, services: Services, path: str, body: dict[str, Any], secret: str
) -> None:
    assert KEYED[f"/api/v1{path}"]
    made = http.post(f"/api/v1{path}", json=body, headers=keyed("k"))
    again = http.post(f"/api/v1{path}", json=body, headers=keyed("k"))
    assert (made.status_code, again.status_code) == (201, 409)
    assert "asked before" in again.json()["detail"]
    assert made.json()[secret] not in again.text
    with services.room.store.begin() as tx:
        row = tx.made.get("local-admin", "k", since=0)
    assert row is not None
    assert (row.status, row.body) == (None, None)


def test_what_was_made_before_the_process_died_is_never_made_again(
    stage: Stage, services: Services
) -> None:
    """The key is in the commit; the answer was not written any more."""
    once = Once("tester", "k", "00")
    with services.room.store.begin() as tx:
        once.take(tx, 100)
    with pytest.raises(Conflict, match="its answer is not kept"):
        Once("tester", "k", "00").found(services.room.store, 200)

    def die() -> None:
        with services.room.store.begin() as tx:
            Once("tester", "other", "00").take(tx, 100)
            raise ZeroDivisionError  # before the commit

    with pytest.raises(ZeroDivisionError):
        die()
    assert Once("tester", "other", "00").found(services.room.store, 200) is None


def test_of_two_requests_at_once_one_happens(http: Web, stage: Stage) -> None:
    stage.devices("a")
    start = threading.Barrier(6)

    def ask(_number: int) -> int:
        start.wait(10)
        body = {"kind": "ping", "device": "a"}
        with Web(http.base) as own:
            return own.post("/api/v1/commands", json=body, headers=AUTH | keyed("k")).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(ask, range(6)))
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    link = stage.services.room.link
    assert isinstance(link, Outbox)
    assert len(link.sent) == 1


def test_keys_are_forgotten_after_a_day(store: Store) -> None:
    for key, at in (("old", 100), ("new", 100 + KEPT_S)):
        with store.begin() as tx:
            Once("a", key, "00").take(tx, at)
    with store.begin() as tx:
        Once("a", "newest", "00").take(tx, 101 + KEPT_S)
        assert tx.made.get("a", "old", since=0) is None
        assert tx.made.get("a", "new", since=0) is not None
        tx.made.answer("a", "new", 201, b"{}")
    with pytest.raises(Conflict, match="on its way"), store.begin() as tx:
        Once("a", "new", "00").take(tx, 101 + KEPT_S)
    with store.begin() as tx:
        row = tx.made.get("a", "new", since=0)
        assert row is not None
        assert (row.status, row.body) == (201, b"{}")


def test_what_did_not_change_is_a_304(http: Web, stage: Stage) -> None:
    stage.devices("a")
    for path in ("/api/v1/devices", "/api/v1/devices/a", "/api/v1/trust"):
        read = http.get(path)
        seen = {"If-None-Match": f'"other", {read.headers["etag"]}'}
        same = http.get(path, headers=seen)
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["etag"] == read.headers["etag"]
        assert read.headers["cache-control"] == "private, no-cache"
    read = http.get("/api/v1/devices")
    stage.devices("b")
    newer = http.get("/api/v1/devices", headers={"If-None-Match": read.headers["etag"]})
    assert (newer.status_code, len(newer.json()["devices"])) == (200, 2)
    assert http.get("/api/v1/devices", headers={"If-None-Match": "unquoted"}).status_code == 200


def test_each_resource_is_changed_by_its_etag_or_not_at_all(
    http: Web, stage: Stage, services: Services
) -> None:
    stage.devices("a")
    rollout = stage.roll_out(1)
    services.groups.put("g", "all", actor=ME)
    services.access.users.add("ada", Role.VIEWER, days=None, actor=ME)
    services.webhooks.add("chat", "https://example.org/", ("*",), actor=ME)
    claim, _ = services.enrolment.make_claim(uses=1, hours=1, actor=ME)
    loose = stage.bundle(2)
    changes = {
        "/api/v1/rollouts/{rollout}": ("POST", rollout, "/pause", None),
        "/api/v1/devices/{device}": ("POST", "a", "/tags", {"tags": {"site": "x"}}),
        "/api/v1/groups/{name}": ("PUT", "g", "", {"filter": "id=a", "replace": True}),
        "/api/v1/users/{name}": ("DELETE", "ada", "", None),
        "/api/v1/webhooks/{name}": ("DELETE", "chat", "", None),
        "/api/v1/claims/{number}": ("DELETE", str(claim), "", None),
        "/api/v1/bundles/{digest}": (
            *("POST", loose.bundle, "/complete"),
            {"signature_sha256": loose.signature_sha256},  # which changes nothing
        ),
    }
    assert changes.keys() == RESOURCES.keys()
    for path, (method, name, verb, body) in changes.items():
        url = f"{path.partition('{')[0]}{name}"
        etag = http.get(url).headers["etag"]
        other = http.request(method, url + verb, json=body, headers={"If-Match": '"other"'})
        assert (other.status_code, other.json()["title"]) == (412, "Precondition Failed"), path
        weak = http.request(method, url + verb, json=body, headers={"If-Match": f"W/{etag}"})
        assert weak.status_code == 412, path
        assert http.get(url).headers["etag"] == etag
        done = http.request(method, url + verb, json=body, headers={"If-Match": etag})
        assert done.status_code in (200, 204), (path, done.text)
    answer = http.post("/api/v1/claims", json={"uses": 1}, headers={"If-Match": "*"})
    assert answer.status_code == 412
    missing = http.delete("/api/v1/groups/none", headers={"If-Match": "*"})
    assert missing.status_code == 404


def test_calls_of_a_user_are_counted_and_answers_say_how_many_are_left(
    http: Web, services: Services, clock: Clock
) -> None:
    services.access.budgets = Budgets(Limit(3, 0.5))
    left = [http.get("/api/v1/groups").headers["ratelimit"] for _ in range(3)]
    assert left == ['"user";r=2;t=2', '"user";r=1;t=4', '"user";r=0;t=6']
    refused = http.get("/api/v1/groups")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert refused.headers["ratelimit-policy"] == '"user";q=3;w=6'
    assert refused.json()["detail"] == "too many calls by this user"
    _, token = services.access.users.add("ada", Role.VIEWER, days=None, actor=ME)
    hers = {"Authorization": f"Bearer {token}"}
    assert http.get("/api/v1/groups", headers=hers).status_code == 200  # each has their own
    clock.now += 2
    assert http.get("/api/v1/groups").status_code == 200


def test_a_body_is_bounded_and_a_method_that_is_none_says_which_are(http: Web) -> None:
    answer = http.post("/api/v1/groups/g", data=iter([b"x"]))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    pieces = iter([b"x" * 1024 * 1024] * (MAX_BODY // 1024 // 1024 + 1))
    large = http.post("/api/v1/claims", data=pieces)
    assert (large.status_code, large.json()["status"]) == (413, 413)


def test_a_value_that_the_data_base_cannot_hold_is_a_refusal(store: Store) -> None:
    def ask() -> object:
        with store.begin() as tx:
            return tx.groups.get("a\x00b")

    if store.dialect == "sqlite":
        assert ask() is None  # SQLite has no objection to NUL
        return
    with pytest.raises(Malformed, match="cannot be kept"):
        ask()


def test_every_route_says_what_it_answers(services: Services) -> None:
    document = create_app(services).openapi()
    asked: list[str] = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            asked.append(operation["operationId"])
            assert operation["tags"], (path, method)
            for status, answer in operation["responses"].items():
                if status in ("200", "201", "202"):
                    (content,) = answer["content"].values()
                    assert content["schema"], f"{method} {path} {status}: no shape is declared"
    assert len(asked) == len(set(asked)) > 60
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for name in ("RolloutBody", "CommandBody", "GroupBody"):
        schema = document["components"]["schemas"][name]
        closed = schema | {"components": document["components"]}
        jsonschema.validate(schema["examples"][0], closed)


def test_no_answer_has_a_field_that_the_document_lacks(
    http: Web, stage: Stage, services: Services
) -> None:
    stage.devices("a", "b")
    rollout = stage.roll_out(1, waves=(100,))
    stage.commit("a")
    stage.fail("b")
    services.groups.put("g", "all", actor=ME)
    services.access.users.add("ada", Role.VIEWER, days=None, actor=ME)
    services.webhooks.add("chat", "https://example.org/", ("*",), actor=ME)
    claim, _ = services.enrolment.make_claim(uses=1, hours=1, actor=ME)
    given = http.post("/api/v1/commands", json={"kind": "ping", "device": "a"}).json()
    document = json.loads(http.get("/openapi.json").content)
    close(document)
    names = {
        "device": "a",
        "rollout": rollout,
        "number": str(claim),
        "digest": "digits-1",
        "model": "digits",
        "command": given["commands"][0]["id"],
    }
    by_noun = {"groups": "g", "users": "ada", "webhooks": "chat"}
    asked = 0
    for path, methods in document["paths"].items():
        content = methods.get("get", {}).get("responses", {}).get("200", {}).get("content", {})
        shape = content.get("application/json", {}).get("schema")
        if shape is None or not path.startswith("/api/v1/") or "{sha256}" in path:
            continue
        noun = path.split("/")[3]
        if noun == "fleets":
            continue  # a site's alone: tests/fleet/test_site.py
        url = path.format(**names, name=by_noun.get(noun, ""))
        url += f"?of={given['request']}" if path == "/api/v1/commands" else ""
        answer = http.get(url)
        assert answer.status_code == 200, url
        jsonschema.validate(answer.json(), shape | {"components": document["components"]})
        asked += 1
    assert asked > 25


def close(schema: Any) -> None:
    """Let objects with named fields have no others."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            close(inner)


def test_what_was_made_is_answered_though_its_answer_cannot_be_kept(
    http: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: object) -> None:
        raise TransientError("the data base does not answer")

    monkeypatch.setattr(Once, "answered", hang)
    answer = http.post("/api/v1/claims", json={}, headers=keyed("k"))
    assert answer.status_code == 201
    again = http.post("/api/v1/claims", json={}, headers=keyed("k"))
    assert again.status_code == 409


def test_who_waits_too_long_for_others_changes_is_told_to_come_again(
    http: Web, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet_fleet.work._TURN_S", 0.05)
    with services.room._turn():
        answer = http.post("/api/v1/claims", json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"] == "other changes take too long"
    assert http.post("/api/v1/claims", json={}).status_code == 201
