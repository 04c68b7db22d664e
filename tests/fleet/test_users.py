"""Users and the sessions of their pages: made, used, revoked, expired."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests
import sqlalchemy as sa

from edgefleet_contract.errors import OperatorError
from edgefleet_fleet.api import create_app
from edgefleet_fleet.errors import Conflict
from edgefleet_fleet.roles import Role
from edgefleet_fleet.services import Services
from edgefleet_fleet.users import LOCAL_ADMIN, SESSION_S, hash_token
from tests.fleet.running import Fleet
from tests.fleet.stage import ME, TOKEN, Clock
from tests.fleet.web import Web, serving

AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        yield web


def add(http: Web, name: str, role: str, **more: object) -> str:
    made = http.post("/api/v1/users", headers=AUTH, json={"name": name, "role": role, **more})
    assert made.status_code == 201, made.text
    return str(made.json()["token"])


def status(http: Web, token: str) -> int:
    return requests.get(
        f"{http.base}/api/v1/devices", headers={"Authorization": f"Bearer {token}"}, timeout=5
    ).status_code


def test_a_user_acts_under_its_name_until_it_is_revoked(http: Web) -> None:
    token = add(http, "ann", "operator")
    assert len(token) == 43  # 32 bytes
    mine = {"Authorization": f"Bearer {token}"}
    assert http.post("/api/v1/claims", headers=mine, json={}).status_code == 201
    assert http.delete("/api/v1/users/ann", headers=AUTH).status_code == 204
    assert status(http, token) == 401
    trail = http.get("/api/v1/audit", headers=AUTH).json()["audit"]
    said = [(row["who"], row["what"], row["subject"]) for row in trail[:3]]
    assert said == [
        (LOCAL_ADMIN, "user.revoke", "ann"),
        ("ann", "claim.make", "1"),
        (LOCAL_ADMIN, "user.add", "ann"),
    ]


def test_a_token_is_said_once_and_kept_as_a_hash(http: Web, services: Services) -> None:
    token = add(http, "ann", "viewer")
    http.post("/api/v1/login", json={"token": token})
    session = http.cookies[services.access.cookie_name]
    listed = http.get("/api/v1/users", headers=AUTH)
    assert [user["name"] for user in listed.json()["users"]] == ["ann", LOCAL_ADMIN]
    assert hash_token(token) not in listed.text
    with services.room.store.engine.connect() as connection:
        rows = [
            str(row)
            for name in sa.inspect(connection).get_table_names()
            for row in connection.exec_driver_sql(f'SELECT * FROM "{name}"')
        ]
    for secret in (token, session, TOKEN):
        assert not [row for row in rows if secret in row]
    assert [row for row in rows if hash_token(session) in row]


def test_a_token_ends_with_its_days(http: Web, clock: Clock) -> None:
    token = add(http, "ann", "viewer", days=1)
    assert status(http, token) == 200
    clock.now += 86400
    assert status(http, token) == 401
    assert status(http, add(http, "ann", "viewer")) == 200  # the name is free again


@pytest.mark.parametrize("ends", ["revoked", "expired", "replaced"])
def test_a_page_ends_with_its_user(services: Services, http: Web, clock: Clock, ends: str) -> None:
    token = add(http, "ann", "viewer", days=0.1)
    assert http.post("/api/v1/login", json={"token": token}).json() == {
        "name": "ann",
        "role": "viewer",
    }
    assert http.get("/api/v1/devices").status_code == 200
    if ends == "expired":
        clock.now += 8640
    else:
        services.access.users.revoke("ann", actor=ME)
    if ends == "replaced":
        services.access.users.add("ann", Role.ADMIN, days=None, actor=ME)
    assert http.get("/api/v1/devices").status_code == 401


def test_a_session_lasts_twelve_hours_and_ends_with_logout(
    services: Services, http: Web, clock: Clock
) -> None:
    answer = http.post("/api/v1/login", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert f"max-age={SESSION_S}" in cookie
    kept = dict(http.cookies)
    clock.now += SESSION_S - 1
    assert http.get("/api/v1/devices").status_code == 200
    assert http.post("/api/v1/logout").status_code == 204
    assert http.get("/api/v1/devices", cookies=kept).status_code == 401
    http.post("/api/v1/login", json={"token": TOKEN})
    clock.now += SESSION_S
    assert http.get("/api/v1/devices").status_code == 401


def test_a_page_of_another_origin_cannot_use_the_cookie(http: Web) -> None:
    http.post("/api/v1/login", json={"token": TOKEN})
    for site, expected in (("same-origin", 201), ("same-site", 403), ("cross-site", 403)):
        answer = http.post("/api/v1/claims", json={}, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == expected, site
    forged = {"Sec-Fetch-Site": "cross-site"}
    assert http.post("/login", data={"token": TOKEN}, headers=forged).status_code == 403


def test_a_page_may_do_no_more_than_its_user(http: Web) -> None:
    http.post("/api/v1/login", json={"token": add(http, "ann", "viewer")})
    assert http.get("/").status_code == 200
    refused = http.post("/api/v1/claims", json={})
    assert refused.status_code == 403
    assert "ann is viewer: this needs the role operator or admin" in refused.text


@pytest.mark.parametrize("name", ["local-admin", "fleet", "Ann", "a b", "../x", "a" * 65])
def test_a_name_that_means_somebody_else_is_refused(services: Services, name: str) -> None:
    with pytest.raises(OperatorError):
        services.access.users.add(name, Role.VIEWER, days=None, actor=ME)


def test_a_user_that_is_there_and_the_local_admin_stay(services: Services) -> None:
    services.access.users.add("ann", Role.VIEWER, days=None, actor=ME)
    with pytest.raises(Conflict):
        services.access.users.add("ann", Role.ADMIN, days=None, actor=ME)
    with pytest.raises(Conflict):
        services.access.users.revoke(LOCAL_ADMIN, actor=ME)


def test_another_token_in_the_data_directory_replaces_the_first(
    services: Services, http: Web
) -> None:
    http.post("/api/v1/login", json={"token": TOKEN})
    services.access.users.keep_local_admin(hash_token("another"))
    assert status(http, TOKEN) == 401
    assert status(http, "another") == 200
    assert http.get("/api/v1/devices").status_code == 401


@pytest.mark.system
def test_the_command_line_says_a_token_once(fleet: Fleet) -> None:
    made = fleet.run("users", "add", "ann", "--role", "publisher", "--days", "2")
    assert (made.returncode, len(made.stdout.strip())) == (0, 43), made.stderr
    (shown,) = [
        user
        for user in json.loads(fleet.run("users", "list", "--json").stdout)
        if user["name"] == "ann"
    ]
    assert (shown["role"], shown["expires_at"] - shown["created_at"]) == ("publisher", 2 * 86400)
    assert "ann" in fleet.run("users", "list").stdout
    assert fleet.run("users", "revoke", "ann").returncode == 0
    assert fleet.run("users", "revoke", "nobody").returncode == 1
