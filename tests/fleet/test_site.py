"""Several fleets in one service: what is one's is worth nothing in another."""

from __future__ import annotations

import json
import re
import shlex
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import render
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet import site_folder
from edgefleet_fleet.client import Client
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.errors import Conflict, Denied, NotFound
from edgefleet_fleet.push import read_bundle
from tests.contract.makers import write_bundle
from tests.fleet.device import Connection, Device, Identity, enrol, new_key, request_of
from tests.fleet.running import Fleet, free_port, require, until
from tests.fleet.stage import FLEET
from tests.fleet.tenants import Tenant, add, fleet

pytestmark = pytest.mark.system
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "tenants.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    require("mosquitto", "mosquitto")
    found = Fleet(tmp_path_factory.mktemp("site") / "fleet", free_port(), free_port())
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def tenants(site: Fleet, publisher: PrivateKey) -> tuple[Tenant, Tenant]:
    """Two fleets beside the site's own; both trust `publisher`."""
    found = add(site, "a"), add(site, "b")
    for tenant in found:
        tenant.trust(publisher)
    return found


@pytest.fixture(scope="module")
def boards(
    tenants: tuple[Tenant, Tenant], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Identity, Identity]:
    """A device of each, of one name."""
    return tuple(  # type: ignore[return-value] # two of them
        enrol(
            tenant.url,
            tenant.client.post("/claims", {})["claim"],
            "cam",
            tmp_path_factory.mktemp(tenant.name),
        )
        for tenant in tenants
    )


def test_a_token_of_one_fleet_is_nobodys_in_another(
    site: Fleet, tenants: tuple[Tenant, Tenant]
) -> None:
    places = (site, *tenants)
    for place in places:
        for whose in places:
            client = Client(place.url, whose.token)
            if whose is place:
                assert client.get("/devices")["devices"] is not None
            else:
                with pytest.raises(Denied, match="not known here"):
                    client.get("/devices")
    own = DataDir(tenants[0].data).read_token()  # whoever has the machine
    assert Client(tenants[0].url, own).get("/users")["users"]
    with pytest.raises(Denied):
        Client(tenants[1].url, own).get("/users")


def test_a_page_of_one_fleet_is_none_of_another(
    site: Fleet, tenants: tuple[Tenant, Tenant]
) -> None:
    a, b = tenants
    with requests.Session() as browser:
        entered = browser.get(f"{a.url}?token={a.token}", timeout=10, allow_redirects=False)
        assert entered.headers["location"] == "/fleets/a/"
        entered = browser.get(f"{a.url}/?token={a.token}", timeout=10, allow_redirects=False)
        assert (entered.status_code, entered.headers["location"]) == (303, "/fleets/a/")
        cookie = entered.headers["set-cookie"]
        assert "; Path=/fleets/a/;" in cookie
        page = browser.get(f"{a.url}/", timeout=10)
        assert page.status_code == 200
        for link in re.findall(r'(?:href|src|action)="(/[^"]*)"', page.text):
            assert link.startswith("/fleets/a/")
            assert browser.get(f"{site.url}{link}", timeout=10).status_code in (200, 405), link
        assert browser.get(f"{a.url}/api/v1/devices", timeout=10).status_code == 200
    said = {"Cookie": cookie.partition(";")[0]}  # whoever sends it everywhere
    assert requests.get(f"{a.url}/api/v1/devices", headers=said, timeout=10).status_code == 200
    for other in (b, site):
        answer = requests.get(f"{other.url}/api/v1/devices", headers=said, timeout=10)
        assert answer.status_code == 401
    out = requests.post(f"{a.url}/logout", headers=said, timeout=10, allow_redirects=False)
    assert out.headers["location"] == "/fleets/a/login"


def test_a_claim_of_one_fleet_lets_nobody_into_another(
    site: Fleet, tenants: tuple[Tenant, Tenant]
) -> None:
    a, b = tenants
    claim = a.client.post("/claims", {})["claim"]
    for place, status in ((b, 403), (a, 200)):
        body = render(request_of(claim, "visitor", new_key()))
        answer = requests.post(f"{place.url}/api/v1/enrol", data=body, timeout=10)
        assert answer.status_code == status, answer.text


def knock(identity: Identity, at: Identity) -> bytes:
    """Connect to the broker of `at` with the certificate of `identity`; its first byte."""
    context = ssl.create_default_context(cafile=str(at.folder / "ca.pem"))
    context.load_cert_chain(identity.folder / "device.crt", identity.folder / "device.key")
    with (
        socket.create_connection((at.host, at.port), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname=at.host) as tls,
    ):
        tls.sendall(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00")  # MQTT 5: CONNECT
        if first := tls.recv(1):
            return first
        raise ConnectionAbortedError("the broker hung up")


def test_a_device_of_one_fleet_is_not_let_in_by_the_broker_of_another(
    boards: tuple[Identity, Identity],
) -> None:
    cam_of_a, cam_of_b = boards
    assert cam_of_a.port != cam_of_b.port
    with pytest.raises((ssl.SSLError, ConnectionError)):
        knock(cam_of_a, cam_of_b)
    assert knock(cam_of_b, cam_of_b) == b"\x20"  # CONNACK


def test_topics_of_one_fleet_are_not_on_the_broker_of_another(
    tenants: tuple[Tenant, Tenant], boards: tuple[Identity, Identity]
) -> None:
    a, _ = boards
    with Connection(a.folder, "device", a.host, a.port, "cam") as spy:
        for where in ("#", "edgefleet/v1/b/#", topic("b", "cam", Channel.DESIRED)):
            spy.subscribe(where)
        with Device(boards[1], "b") as device:
            device.publish(device.topic(Channel.EVENT), b"b's own")
        spy.subscribe(topic("a", "cam", Channel.DESIRED))  # a round trip later it would be there
        seen = [spy.arrived.get_nowait()[0] for _ in range(spy.arrived.qsize())]
        assert [where for where in seen if not where.startswith("edgefleet/v1/a/")] == []


def test_a_model_travels_within_its_fleet_and_its_blobs_are_not_given_elsewhere(
    site: Fleet,
    tenants: tuple[Tenant, Tenant],
    boards: tuple[Identity, Identity],
    publisher: PrivateKey,
    tmp_path: Path,
) -> None:
    a, b = tenants
    folder = write_bundle(tmp_path, publisher)
    with Device(boards[1], "b") as device:
        rollout = b.push(folder, to="id=cam")
        order = device.next_order()
        assert order.sources == (f"{b.url}/blobs",)
        assert order.metadata == (f"{b.url}/tuf",)
        digest = read_bundle(folder).digest
        got = requests.get(f"{order.sources[0]}/{digest}", timeout=10)
        assert sha256(got.content) == digest
        device.commit(order)
        until(lambda: b.client.get(f"/rollouts/{rollout}")["state"] == "completed")
    for other in (a, site):
        assert requests.get(f"{other.url}/blobs/{digest}", timeout=10).status_code == 404
        assert other.client.get("/bundles")["bundles"] == []
        with pytest.raises(NotFound):
            other.client.get(f"/rollouts/{rollout}")


def test_the_sites_admin_has_the_list_of_fleets_and_nobody_else_does(
    site: Fleet, tenants: tuple[Tenant, Tenant], capsys: pytest.CaptureFixture[str]
) -> None:
    fleet(site, "fleets", "list", "--json")
    listed = json.loads(capsys.readouterr().out)
    assert [(found["name"], found["state"]) for found in listed] == [
        ("a", "running"),
        ("b", "running"),
    ]
    for tenant in tenants:
        with pytest.raises(NotFound, match="has no fleets"):
            tenant.client.post("/fleets", {"name": "c"})
    viewer = site.client.post("/users", {"name": "eve", "role": "operator"})["token"]
    with pytest.raises(Denied):
        Client(site.url, viewer).get("/fleets")
    for taken in ({"name": "a"}, {"name": "demo"}, {"name": "c", "mqtt_port": site.mqtt_port}):
        with pytest.raises(Conflict):
            site.client.post("/fleets", taken)
    audit = site.client.get("/audit")
    assert "fleet.add" in json.dumps(audit)
    health = requests.get(f"{site.url}/healthz", timeout=10).json()
    assert health["fleets"] == {"starting": 0, "running": 2, "troubled": 0}
    assert requests.get(f"{tenants[0].url}/healthz", timeout=10).json()["fleet"] == "a"
    assert requests.get(f"{site.url}/fleets/nobody/healthz", timeout=10).status_code == 404


def test_a_port_that_is_taken_leaves_no_fleet_behind(site: Fleet) -> None:
    with socket.create_server(("", 0)) as taken:
        body = {"name": "late", "mqtt_port": taken.getsockname()[1]}
        answer = requests.post(
            f"{site.url}/api/v1/fleets",
            json=body,
            headers={"Authorization": f"Bearer {site.token}"},
            timeout=30,
        )
    assert (answer.status_code, "is taken" in answer.json()["detail"]) == (400, True)
    assert not (site.data / "fleets" / "late").exists()


def test_what_is_broken_stops_its_own_fleet_alone_and_comes_back(tmp_path: Path) -> None:
    require("mosquitto", "mosquitto")
    site = Fleet(tmp_path / "fleet", free_port(), free_port())
    home = DataDir(site.data)
    home.prepare(FLEET, public_host="")
    a, b = (Tenant(site.data / "fleets" / name, site.http_port, free_port()) for name in "ab")
    for tenant in (a, b):
        site_folder.make(DataDir(tenant.data), mqtt_port=tenant.mqtt_port)
        tenant.name = tenant.data.name
    bases = [DataDir(place.data).database for place in (site, b)]
    for base in bases:
        base.write_bytes(b"this is no data base" * 100)
    site.start()
    try:
        until(lambda: a.health() == 200, timeout=60)
        assert (site.health(), b.health()) == (503, 503)
        for base in bases:
            base.unlink()
        until(lambda: (site.health(), b.health()) == (200, 200), timeout=60)
        states = {found["name"]: found["state"] for found in site.client.get("/fleets")["fleets"]}
        assert states == {"a": "running", "b": "running"}
        log = site.log.read_text()
        assert re.search(r"fleet b: .*not a database.*; the others go on", log)
        assert re.search(r"^. edgefleet\.broker\[a\]: ", log, re.MULTILINE)
    finally:
        assert site.stop() == 0


def test_the_guide_is_followed(
    site: Fleet, publisher: PrivateKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands in their order; ports, addresses and secrets are this site's."""
    lines = [
        line
        for block in re.findall(r"^```\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith("fleet ")
    ]
    assert len(lines) == 8, lines
    publisher.save(tmp_path / "acme-publisher.pem")
    port = free_port()
    acme = Tenant(site.data / "fleets" / "acme", site.http_port, port)
    acme.name = "acme"
    for line in lines:
        words = [
            str(tmp_path / word) if word.startswith("acme-") or word == "acme.tar" else word
            for word in shlex.split(line)[1:]
        ]
        words = [
            word.replace("8884", str(port)).replace("fleet-data", str(site.data)) for word in words
        ]
        capsys.readouterr()
        fleet(acme if words[0] in ("users", "keys", "devices") else site, *words)
        if words[:2] == ["fleets", "add"]:
            acme.secret = capsys.readouterr().out.strip()
        if words[:2] == ["fleets", "remove"]:
            assert requests.get(f"{site.url}/fleets/acme/", timeout=30).status_code == 404
            assert not acme.data.exists()
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert (acme.data / "keys" / "ca.key").exists()
    kept = list((site.data / "fleets" / ".removed").iterdir())
    assert [place.name.partition("-")[0] for place in kept] == ["acme"]
    with pytest.raises(OperatorError, match="keeps its name"):
        fleet(site, "restore", tmp_path / "acme.tar", "--data", site.data, "--fleet", "zeta")
    with pytest.raises(OperatorError) as refused:
        fleet(site, "init", "--data", acme.data)
    assert "runs them all" in refused.value.hint
