"""Buckets that wrong tokens empty and time fills; then the same over HTTP, the clock held."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgefleet_contract.throttle import Limit, Throttle
from edgefleet_fleet.api import create_app
from edgefleet_fleet.services import Services
from tests.fleet.stage import TOKEN, Clock
from tests.fleet.web import Web, serving

AUTH = {"Authorization": f"Bearer {TOKEN}"}
WRONG = {"Authorization": "Bearer wrong"}


def test_an_address_may_be_wrong_so_often_and_then_waits() -> None:
    throttle = Throttle(per_address=Limit(3, 0.5))
    for _ in range(3):
        assert throttle.wait("192.0.2.1", now=100) == 0
        throttle.failed("192.0.2.1", now=100)
    assert throttle.wait("192.0.2.1", now=100) == 2
    assert throttle.wait("192.0.2.2", now=100) == 0
    assert throttle.wait("192.0.2.1", now=101) == 1
    assert throttle.wait("192.0.2.1", now=102) == 0


def test_a_clock_that_is_set_back_locks_nobody_out_for_longer() -> None:
    throttle = Throttle(per_address=Limit(1, 1))
    throttle.failed("192.0.2.1", now=1000)
    assert throttle.wait("192.0.2.1", now=10) == 1
    assert throttle.wait("192.0.2.1", now=11) == 0


def test_a_flood_from_many_addresses_holds_back_strangers_only() -> None:
    throttle = Throttle(for_all=Limit(20, 1))
    throttle.succeeded("192.0.2.1", now=0)
    for number in range(40):
        throttle.failed(f"198.51.100.{number}", now=0)
    assert throttle.wait("203.0.113.1", now=0) == 1
    assert throttle.wait("192.0.2.1", now=0) == 0
    assert throttle.wait("203.0.113.1", now=1) == 0


def test_memory_is_bounded_and_strangers_are_forgotten_first() -> None:
    throttle = Throttle(per_address=Limit(1, 0.01), for_all=Limit(1e9, 1), max_addresses=100)
    throttle.succeeded("192.0.2.1", now=0)
    throttle.failed("192.0.2.1", now=0)
    for number in range(1000):
        throttle.failed(f"10.0.{number // 250}.{number % 250}", now=0)
    assert len(throttle) == 100
    assert throttle.wait("192.0.2.1", now=0) > 0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_an_address_is_what_one_subscriber_has(one: str, other: str, is_same: bool) -> None:
    throttle = Throttle(per_address=Limit(1, 0.1))
    throttle.failed(one, now=0)
    assert (throttle.wait(other, now=0) > 0) == is_same


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        yield web


def test_wrong_tokens_are_answered_429_until_time_has_passed(http: Web, clock: Clock) -> None:
    statuses = [http.get("/api/v1/devices", headers=WRONG).status_code for _ in range(10)]
    assert statuses == [401] * 10
    refused = http.get("/api/v1/devices", headers=WRONG)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "6")
    assert refused.headers["content-type"] == "application/problem+json"
    # Not even a right one is looked at, by whichever way in.
    assert http.get("/api/v1/devices", headers=AUTH).status_code == 429
    assert http.post("/api/v1/login", json={"token": TOKEN}).status_code == 429
    assert http.post("/login", data={"token": TOKEN}).status_code == 429
    assert http.get(f"/?token={TOKEN}").status_code == 429
    clock.now += 6
    assert http.get("/api/v1/devices", headers=AUTH).status_code == 200


def test_logins_count_as_well_and_an_open_page_stays_open(http: Web, clock: Clock) -> None:
    assert http.post("/api/v1/login", json={"token": TOKEN}).status_code == 200
    for _ in range(10):
        assert http.post("/login", data={"token": "wrong"}).status_code == 401
    page = http.post("/login", data={"token": "wrong"}, headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["retry-after"]) == (429, "6")
    assert "Too many wrong tokens" in page.text
    assert http.get("/api/v1/devices").status_code == 200  # by its cookie
