"""Transfers with a real fleet, broker and cache, and processes that are really killed."""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from edgefleet_agent import identity as identities
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.mqtt_chunks import MqttChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract.bundle import CHUNK_SIZE, chunk_list, parse_manifest, sha256
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.datadir import DataDir
from tests.agent.bundles import make_bundle
from tests.agent.shelf import serve
from tests.fleet.running import free_port, require
from tests.system.in_band import linked
from tests.system.site import Site, open_site

pytestmark = pytest.mark.system
RAW = random.Random(21).randbytes(8 * 1024 * 1024 + 1)
TABLE = chunk_list(RAW)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A control room with a large blob on its shelf, and an enrolled device, `pi-1`.

    Without TLS, so that a cache may stand between.
    """
    with open_site(tmp_path_factory.mktemp("site"), is_tls=False) as opened:
        shelf = FileShelf(DataDir(opened.data).blobs)
        for raw in (RAW, TABLE):
            shelf.put(sha256(raw), io.BytesIO(raw), max_bytes=len(raw))
        opened.enrol("pi-1")
        yield opened


def broker_pid(site: Site) -> int:
    command = ["pgrep", "-f", f"mosquitto -c {site.data}/"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def fetch(mover: Mover, *sources: str, progress: object = None) -> int:
    return mover.fetch_file(
        sha256(RAW),
        size=len(RAW),
        chunk_list_sha256=sha256(TABLE),
        sources=sources,
        what="blob",
        progress=progress or (lambda _: None),  # type: ignore[arg-type]
    )


def good_bytes(part: Path) -> int:
    """What is right of a part, chunk by chunk."""
    raw = part.read_bytes()
    starts = range(0, len(RAW), CHUNK_SIZE)
    pairs = ((raw[at : at + CHUNK_SIZE], RAW[at : at + CHUNK_SIZE]) for at in starts)
    return sum(len(right) for found, right in pairs if found == right)


@pytest.mark.parametrize(
    ("way", "then"),
    [
        ("http", "http"),
        ("mqtt", "mqtt"),
        ("folder", "folder"),
        ("http", "mqtt"),
        ("mqtt", "folder"),
    ],
)
def test_a_transfer_that_is_killed_goes_on_by_chunk_also_another_way(
    site: Site, tmp_path: Path, way: str, then: str
) -> None:
    store, state = Store(tmp_path / "store"), site.root / "pi-1"
    (state / "stick").mkdir(exist_ok=True)
    if not (state / "stick" / "blobs").exists():
        (state / "stick" / "blobs").symlink_to(DataDir(site.data).blobs)
    command = [sys.executable, "-m", "tests.system.puller", str(state), str(tmp_path / "store")]
    command += [sha256(RAW), str(len(RAW)), sha256(TABLE)]
    source = f"{site.url}/blobs"
    first = subprocess.Popen([*command, way, source], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    for line in first.stdout:
        if int(line) > len(RAW) // 3:
            first.kill()
            break
    first.stdout.close()
    first.wait()
    good = good_bytes(store.part_path(sha256(RAW)))
    assert len(RAW) // 3 < good < len(RAW)
    second = subprocess.run([*command, then, source], capture_output=True, text=True, check=True)
    moved = json.loads(second.stdout.splitlines()[-1])
    assert store.read(sha256(RAW)) == RAW
    assert moved == {then: len(RAW) - good + len(TABLE)}


def test_http_dies_and_the_rest_comes_in_band(site: Site, tmp_path: Path) -> None:
    store = Store(tmp_path)
    in_band = MqttChunks("pi-1")
    mover = Mover(store, [HttpChunks(), in_band])
    with serve() as shelf, linked(identities.load(site.root / "pi-1"), in_band):
        shelf.put(RAW)
        shelf.put(TABLE)
        shelf.cut_after = 50 * CHUNK_SIZE + 1000
        assert fetch(mover, shelf.url) == len(RAW)  # no good chunk came twice
        assert [digest for digest, _ in shelf.requests] == [sha256(TABLE), sha256(RAW)]
    moved = mover.take_moved().ways
    assert store.read(sha256(RAW)) == RAW
    assert moved["http"] == len(TABLE) + 50 * CHUNK_SIZE
    assert moved["mqtt"] == len(RAW) - 50 * CHUNK_SIZE


def test_a_broker_that_dies_in_the_middle_is_waited_for(site: Site, tmp_path: Path) -> None:
    store = Store(tmp_path)
    in_band = MqttChunks("pi-1")
    mover = Mover(store, [in_band])
    kills: list[int] = []

    def kill_once(done: int) -> None:
        if done > len(RAW) // 2 and not kills:
            kills.append(broker_pid(site))
            subprocess.run(["kill", "-9", str(kills[0])], check=True)

    with linked(identities.load(site.root / "pi-1"), in_band):
        assert fetch(mover, progress=kill_once) == len(RAW)  # no chunk came twice
    assert store.read(sha256(RAW)) == RAW
    assert broker_pid(site) != kills[0]


def test_devices_are_served_in_turn_and_ingest_goes_on(site: Site, tmp_path: Path) -> None:
    """Two at once: neither starves, and what a device tells meanwhile is taken."""
    site.enrol("pi-2")
    finished: dict[str, int] = {}

    def go(device: str) -> None:
        in_band = MqttChunks(device)
        mover = Mover(Store(tmp_path / device), [in_band])
        with linked(identities.load(site.root / device), in_band):
            finished[device] = fetch(mover)

    threads = [threading.Thread(target=go, args=(device,)) for device in ("pi-1", "pi-2")]
    for thread in threads:
        thread.start()
    site.wait("presence", lambda: site.get("/devices/pi-2")["online"])
    for thread in threads:
        thread.join(60)
    assert finished == {"pi-1": len(RAW), "pi-2": len(RAW)}
    metrics = requests.get(f"{site.url}/metrics", timeout=10).text
    (sent,) = re.findall(r"(?m)^edgefleet_blob_sent_bytes_total (\d+)", metrics)
    assert int(sent) >= 2 * len(RAW)


NGINX = """daemon off; worker_processes 1; error_log stderr; pid {root}/nginx.pid;
events {{ }}
http {{
  access_log off;
  proxy_cache_path {root}/cache keys_zone=blobs:1m max_size=1g inactive=30d use_temp_path=off;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  server {{
    listen 127.0.0.1:{port};
    location /blobs/ {{
      proxy_pass {upstream};
      proxy_cache blobs;
      proxy_cache_lock on;
    }}
  }}
}}
"""


def test_a_cache_of_the_site_spares_the_uplink(site: Site, tmp_path: Path) -> None:
    """nginx in front of the fleet: what one device had, the next gets while the fleet is away."""
    program = require("nginx", "nginx-light")
    port = free_port()
    (tmp_path / "cache").mkdir(mode=0o777)
    tmp_path.chmod(0o755)
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"user root;{NGINX.format(root=tmp_path, port=port, upstream=site.url)}")
    url = f"http://127.0.0.1:{port}/blobs"
    with (tmp_path / "nginx.log").open("wb") as log:
        nginx = subprocess.Popen([program, "-c", str(conf)], stdout=log, stderr=log)
    try:
        site.wait("nginx", lambda: (tmp_path / "nginx.pid").exists())
        fetch(Mover(Store(tmp_path / "one"), [HttpChunks(mirrors=(url,))]))
        site.kill("fleet")
        mover = Mover(Store(tmp_path / "two"), [HttpChunks(mirrors=(url,)), HttpChunks()])
        Store(tmp_path / "two").part_path(sha256(RAW)).write_bytes(RAW[: 10 * CHUNK_SIZE])
        fetch(mover, f"{site.url}/blobs")
        assert mover.take_moved().ways == {"mirror": len(RAW) - 10 * CHUNK_SIZE + len(TABLE)}
    finally:
        nginx.terminate()
        nginx.wait(10)
        site.start_fleet()


def test_a_whole_update_comes_over_one_mqtt_connection(tmp_path: Path) -> None:
    """The control room's HTTP address leads nowhere; an order, its bundle and its model arrive."""
    with open_site(tmp_path) as site:
        state = site.enrol("pi-1")
        site.kill("fleet")
        (site.data / "fleet.toml").write_text('public_url = "https://127.0.0.1:1"\n')
        place = state / "identity" / "enrolment.json"
        place.write_text(place.read_text().replace(site.url, "https://127.0.0.1:1"))
        site.start_fleet()
        site.start_agent("pi-1")
        rollout = site.push(make_bundle(site.root / "bundles", 1, key=site.publisher))
        site.wait("version 1", lambda: site.version("pi-1") == 1)
        site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed")
        told = site.get("/devices/pi-1")["events"]
    measured = next(event["measurements"] for event in told if event["phase"] == "committed")
    assert measured["bytes_mqtt"] == measured["download_bytes"] > 1_000
    assert measured.get("bytes_http", 0) == 0


# An agent that gives a missing file up after one more try, not three: else this takes a while.
_HASTY = """
from edgefleet_agent import transitions
from edgefleet_agent.__main__ import main
transitions.MAX_MISSING = 1
raise SystemExit(main())
"""


def test_a_device_that_gave_up_is_asked_again_and_gets_it_once_it_is_there(site: Site) -> None:
    state = site.enrol("pi-9")
    site.start("pi-9", sys.executable, "-c", _HASTY, "run", "--state", state)
    folder = make_bundle(site.root / "bundles", 1, key=site.publisher)
    rollout = site.push(folder, "--to", "id=pi-9", "--draft", "--retries", "10,wait=1s")
    blob = FileShelf(DataDir(site.data).blobs).path(sha256(model_of(folder).read_bytes()))
    aside = blob.rename(site.root / "aside")  # the shelf has lost it

    def told(kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = site.get(f"/devices/pi-9/events?kind={kind}")["events"]
        return found[::-1]

    site.fleet("rollouts", "start", rollout)
    gave_up = ("failed", "not_found")
    site.wait("it", lambda: gave_up in [(e["phase"], e["reason"]) for e in told("install")])
    assert site.version("pi-9") is None
    aside.rename(blob)
    site.wait("the model", lambda: site.version("pi-9") == 1)
    site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed")
    (found,) = site.get(f"/rollouts/{rollout}")["devices"]
    assert (found["outcome"], found["reason"]) == ("good", None)
    assert found["tries"] >= 1
    assert [e["what"] for e in told("rollout")] == ["retrying", "asked again"] * found["tries"]
    assert told("install")[0]["order_seq"] < found["order_seq"]  # each try is an order of its own
    assert site.stop("pi-9") == 0


def model_of(folder: Path) -> Path:
    """The model's file of a bundle."""
    manifest = parse_manifest((folder / "bundle.json").read_bytes())
    return folder / manifest.variants[0].model
