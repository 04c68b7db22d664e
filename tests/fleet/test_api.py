"""The API over HTTP: who may ask, what is answered, how refusals look."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.enrolment import EnrolResponse
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import parse, render
from edgefleet_fleet import ceremony
from edgefleet_fleet.api import create_app
from edgefleet_fleet.api_common import OPEN
from edgefleet_fleet.services import Services
from tests.contract.makers import write_bundle
from tests.fleet.device import new_key, request_of
from tests.fleet.stage import TOKEN, Clock, Stage, push
from tests.fleet.web import Web, serving

AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        yield web


def test_everything_but_the_ways_in_needs_a_token(http: Web, clock: Clock) -> None:
    document = http.get("/openapi.json").json()
    asked = 0
    for path, methods in document["paths"].items():
        if not path.startswith("/api/v1") or path in OPEN:
            continue
        for method in methods:
            url = path.replace("{number}", "1").replace("{", "").replace("}", "")
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "edgefleet-x=y"}):
                answer = http.request(method, url, headers=headers)
                clock.now += 10  # a wrong token may be tried every so often
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"
                asked += 1
    assert asked > 50


def test_a_refusal_is_a_problem_with_a_hint(http: Web) -> None:
    answer = http.get("/api/v1/devices")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["title"] == "Unauthorized"
    assert "FLEET_TOKEN" in answer.json()["hint"]
    assert http.get("/api/v1/devices/x", headers=AUTH).status_code == 404
    assert http.get("/api/v1/nothing", headers=AUTH).json()["status"] == 404
    assert http.post("/api/v1/claims", headers=AUTH, json={"uses": 0}).status_code == 422
    assert http.get("/api/v1/devices?to=colour=red", headers=AUTH).json()["reason"] == "malformed"


def test_a_device_enrols_with_a_claim(http: Web) -> None:
    made = http.post("/api/v1/claims", headers=AUTH, json={"uses": 1, "hours": 2}).json()
    request = render(request_of(made["claim"], "pi-1", new_key()))
    answer = http.post("/api/v1/enrol", data=request)
    assert answer.status_code == 200
    found = parse(EnrolResponse, answer.content, device="pi-1")
    assert "BEGIN CERTIFICATE" in found.certificate
    refused = http.post("/api/v1/enrol", data=request)
    assert refused.status_code == 403
    assert refused.json()["hint"] == "make a new one: fleet devices claim"
    (listed,) = http.get("/api/v1/claims", headers=AUTH).json()["claims"]
    assert (listed["uses_left"], "claim" in listed) == (0, False)


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"x" * 300_000])
def test_an_enrolment_that_is_not_one_is_refused(http: Web, body: bytes) -> None:
    answer = http.post("/api/v1/enrol", data=body)
    assert (answer.status_code, answer.json()["reason"]) == (422, "malformed")


def test_a_bundle_is_pushed_released_and_rolled_out(
    http: Web, publisher: PrivateKey, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path, publisher)
    body = {
        "manifest": base64.b64encode((folder / "bundle.json").read_bytes()).decode(),
        "signature": base64.b64encode((folder / "model.sig").read_bytes()).decode(),
    }
    received = http.post("/api/v1/bundles", headers=AUTH, json=body).json()
    assert (received["name"], received["verified"]) == ("digits-1", True)
    for blob in received["missing"]:
        content = (folder / blob["path"]).read_bytes()
        answer = http.put(f"/api/v1/blobs/{blob['sha256']}", headers=AUTH, data=content)
        assert answer.json() == {"sha256": blob["sha256"], "size": len(content)}
    names = {"signature_sha256": received["signature_sha256"]}
    url = f"/api/v1/bundles/{received['digest']}/complete"
    assert http.post(url, headers=AUTH, json=names).json()["complete"]
    wish = {"bundle": received["digest"], **names}
    unreleased = http.post("/api/v1/rollouts", headers=AUTH, json=wish)
    assert (unreleased.status_code, "not released" in unreleased.text) == (400, True)
    trust = http.get("/api/v1/trust", headers=AUTH).json()
    manifest = (folder / "bundle.json").read_bytes()
    release = ceremony.release(trust, publisher, "digits", 1, manifest)
    said = http.post("/api/v1/trust/targets", headers=AUTH, json=release)
    assert said.json()["documents"]["targets"]["version"] == 2
    begun = http.post("/api/v1/rollouts", headers=AUTH, json=wish)
    assert begun.status_code == 201
    assert begun.json()["id"] == "digits-1-r1"
    paused = http.post("/api/v1/rollouts/digits-1-r1/pause", headers=AUTH).json()
    assert (paused["state"], paused["cause"]) == ("paused", "operator")
    again = http.post("/api/v1/rollouts/digits-1-r1/pause", headers=AUTH)
    assert again.status_code == 409
    shown = http.get("/api/v1/bundles/digits-1", headers=AUTH).json()
    assert all(file["on_shelf"] for file in shown["files"])
    trail = http.get("/api/v1/audit", headers=AUTH).json()["audit"]
    assert {"bundle.receive", "bundle.complete", "rollout.begin", "rollout.paused"} <= {
        row["what"] for row in trail
    }
    assert {row["address"] for row in trail if row["who"] == "local-admin" and row["address"]} == {
        "127.0.0.1"
    }


def test_a_bundle_of_a_stranger_is_refused_with_the_reason(http: Web, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, PrivateKey.generate_p256())
    body = {
        "manifest": base64.b64encode((folder / "bundle.json").read_bytes()).decode(),
        "signature": base64.b64encode((folder / "model.sig").read_bytes()).decode(),
    }
    answer = http.post("/api/v1/bundles", headers=AUTH, json=body)
    assert (answer.status_code, answer.json()["reason"]) == (422, "unknown_key")
    taken = http.post("/api/v1/bundles", headers=AUTH, json={**body, "check": False})
    assert (taken.status_code, taken.json()["verified"]) == (201, False)


@pytest.fixture
def blob(services: Services, publisher: PrivateKey, tmp_path: Path) -> str:
    """The URL of a blob whose content is the digits 0 to 9, a hundred times."""
    content = b"0123456789" * 100
    bundle = push(services, write_bundle(tmp_path, publisher, content=content))
    with services.room.store.begin() as tx:
        tx.bundles.set_in_clear(bundle.digest)  # as an unsealed rollout does
    return f"/blobs/{sha256(content)}"


@pytest.mark.parametrize(
    ("asked", "status", "content", "where"),
    [
        (None, 200, b"0123456789" * 100, None),
        ("bytes=0-9", 206, b"0123456789", "bytes 0-9/1000"),
        ("bytes=995-", 206, b"56789", "bytes 995-999/1000"),
        ("bytes=-3", 206, b"789", "bytes 997-999/1000"),
        ("bytes=990-5000", 206, b"0123456789", "bytes 990-999/1000"),
        ("bytes=1000-", 416, b"", "bytes */1000"),
        ("bytes=-0", 416, b"", "bytes */1000"),
        ("bytes=0-", 200, b"0123456789" * 100, None),
        ("bytes=5-2", 200, b"0123456789" * 100, None),
        ("bytes=0-1,4-5", 200, b"0123456789" * 100, None),
        ("lines=1-2", 200, b"0123456789" * 100, None),
    ],
)
def test_a_blob_is_given_whole_or_by_range(
    http: Web, blob: str, asked: str | None, status: int, content: bytes, where: str | None
) -> None:
    answer = http.get(blob, headers={"Range": asked} if asked else {})
    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers.get("content-range") == where


def test_a_blob_may_be_kept_for_ever(http: Web, blob: str) -> None:
    answer = http.head(blob)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "1000"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    etag = answer.headers["etag"]
    assert http.get(blob, headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize("name", ["0" * 64, "nothing", "..%2f..%2foperator.token"])
def test_a_blob_that_is_not_there_is_a_404(http: Web, name: str) -> None:
    assert http.get(f"/blobs/{name}").status_code == 404


def test_health_says_when_the_broker_is_away(http: Web, services: Services) -> None:
    assert http.get("/healthz").json()["status"] == "ok"
    services.room.link = None
    answer = http.get("/healthz")
    assert (answer.status_code, answer.json()["broker_connected"]) == (503, False)


def test_devices_are_listed_by_filter(http: Web, stage: Stage) -> None:
    stage.devices("a", "b")
    found = http.get("/api/v1/devices?to=id=b", headers=AUTH).json()["devices"]
    assert [device["id"] for device in found] == ["b"]
    assert http.delete("/api/v1/devices/b", headers=AUTH).status_code == 204
    assert len(http.get("/api/v1/devices", headers=AUTH).json()["devices"]) == 1
