"""A canary through a real control room and a real agent, under load of keep-alive clients."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.bundles import make_bundle
from tests.agent.models import linear, pixels, raw
from tests.system.site import Site, open_site

pytestmark = pytest.mark.system

POLICY = "[canary]\nseconds = 2\nshare_percent = 30\nmin_requests = 5\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as opened:
        yield opened


class Clients:
    """Two clients of a device that ask without a pause: what came, by status and version."""

    def __init__(self, port: int) -> None:
        self._port, self._stop = port, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]
        self.seen: Counter[tuple[int, str]] = Counter()

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        body = json.dumps({"instances": pixels(1).tolist()})
        while not self._stop.is_set():
            connection.request("POST", "/v1/models/digits:predict", body)
            response = connection.getresponse()
            response.read()
            self.seen[response.status, response.headers["edgefleet-model-version"]] += 1
        connection.close()


def test_a_slow_canary_is_turned_away_and_a_good_one_goes_on_to_serve(site: Site) -> None:
    site.enrol("pi-1")
    site.start_agent("pi-1")
    bundles = site.root / "bundles"
    first = site.push(make_bundle(bundles, 1, key=site.publisher))
    site.wait("the first version", lambda: site.rollout_state(first) == "completed")
    policy = site.root / "policy.toml"

    with Clients(site.ports["pi-1"]) as clients:
        policy.write_text(POLICY + "max_p95_percent = 200\n")
        slow = make_bundle(
            bundles, 2, key=site.publisher, raw=raw("thorough.onnx"), answers=linear(pixels(3))
        )
        refused = site.push(slow, "--policy", policy)
        site.wait("the refusal", lambda: site.get(f"/rollouts/{refused}")["by_reason"])
        assert site.get(f"/rollouts/{refused}")["by_reason"] == {"canary_failed": 1}
        assert site.version("pi-1") == 1

        policy.write_text(POLICY)
        good = make_bundle(bundles, 3, key=site.publisher)
        taken = site.push(good, "--probation", "1", "--policy", policy)
        site.wait("the third version", lambda: site.rollout_state(taken) == "completed")
        assert site.version("pi-1") == 3

    assert {status for status, _ in clients.seen} == {200}
    assert {version for _, version in clients.seen} == {"1", "2", "3"}
    assert clients.seen[200, "2"] < clients.seen[200, "1"]
    told = [
        event["measurements"]
        for event in site.get("/devices/pi-1")["events"]
        if event["phase"] == "committed" and "canary_requests" in event["measurements"]
    ]
    assert told[0]["canary_requests"] >= 5
    assert told[0]["canary_failures"] == 0
