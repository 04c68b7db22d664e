"""Keys rotated, releases taken back, keys stolen: with a real control room and a real device."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
import requests

from edgefleet_contract import messages
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.orders import Target
from edgefleet_contract.topics import Channel, topic
from tests.agent.bundles import make_bundle
from tests.contract.makers import order_of, target_of
from tests.system.site import Site, open_site

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as opened:
        opened.enrol("pi-1")
        opened.start_agent("pi-1")
        for version in (1, 2):
            deploy(opened, version)
        yield opened


def deploy(site: Site, version: int) -> None:
    bundle = make_bundle(site.root / "bundles", version, key=site.publisher)
    rollout = site.push(bundle)
    site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed")
    assert site.version("pi-1") == version


def keys(site: Site, *words: str | Path, ok: tuple[int, ...] = (0,)) -> str:
    return site.fleet("keys", *words, ok=ok)


def roots(site: Site) -> tuple[str | Path, ...]:
    """Two of the three offline keys."""
    found = [site.root / "offline" / f"root-{number}.pem" for number in (1, 3)]
    return tuple(word for path in found for word in ("--root", path))


def test_a_revoked_model_that_serves_gives_way_to_the_one_before(site: Site) -> None:
    keys(site, "revoke", "bundle", "digits-2", "--key", site.key)
    site.wait("the version before", lambda: site.version("pi-1") == 1, seconds=30)
    assert site.ask("pi-1")[0] == 200

    # nor does it come back: not with an order, not with permission, not after a power cut
    folder = site.root / "bundles" / "digits-2"
    assert "is revoked" in site.fleet("push-model", folder, "--key", site.key, ok=(1,))
    director = PrivateKey.load(site.data / "keys" / "director.pem")
    forge(site, director, seq=1_000, version=2)
    site.wait("the refusal", lambda: "is revoked" in site.log("pi-1"))
    view = site.get("/devices/pi-1")
    assert [model["version"] for model in view["models"]] == [1]
    site.kill("pi-1")
    site.start_agent("pi-1")
    site.wait("the device", lambda: site.version("pi-1") == 1)


def test_a_floor_stops_what_is_below_it(site: Site) -> None:
    keys(site, "floor", "digits", "3", "--key", site.key)
    site.wait("nothing that may run", lambda: site.version("pi-1") is None, seconds=30)
    assert site.ask("pi-1")[0] == 404
    deploy(site, 3)
    assert "floors only rise" in keys(site, "floor", "digits", "2", "--key", site.key, ok=(1,))


def test_a_new_director_is_obeyed_and_the_old_one_is_not(site: Site) -> None:
    stolen = PrivateKey.load(site.data / "keys" / "director.pem")
    keys(site, "rotate", "director", "--key", site.key)
    assert PrivateKey.load(site.data / "keys" / "director.pem").public != stolen.public
    deploy(site, 3)
    forge(site, stolen, seq=1_000, version=2)
    site.wait("the refusal", lambda: "unknown_key" in site.log("pi-1"))
    assert site.version("pi-1") == 3


def test_a_new_repository_key_takes_over_and_the_stolen_one_is_nobody(site: Site) -> None:
    path = site.data / "keys" / "repository.pem"
    stolen = PrivateKey.load(path)
    assert "2 root keys are needed" in keys(
        site, "rotate", "repository", "--root", site.root / "offline" / "root-1.pem", ok=(1,)
    )
    assert PrivateKey.load(path).public == stolen.public
    keys(site, "rotate", "repository", *roots(site))
    fresh = PrivateKey.load(path)
    assert fresh.public != stolen.public
    deploy(site, 3)
    site.kill("fleet")
    site.start_fleet()
    keys(site, "refresh", "--key", site.key)  # signed with the new key after a start as well
    answer = requests.get(f"{site.url}/tuf/timestamp.json", timeout=10, verify=str(site.ca))
    timestamp = answer.json()
    assert [s["keyid"] for s in timestamp["signatures"]] == [fresh.public.id]
    deploy(site, 4)


def test_a_stolen_director_chooses_among_releases_and_no_more(site: Site) -> None:
    """It may withhold and choose; it cannot release, revive what is revoked, or go unseen."""
    director = PrivateKey.load(site.data / "keys" / "director.pem")
    unreleased = make_bundle(site.root / "evil", 9, key=PrivateKey.generate_p256())
    forge(site, director, seq=1_000, bundle=unreleased)
    site.wait("the refusal", lambda: "not_listed" in site.log("pi-1"))
    assert site.version("pi-1") == 2
    forge(site, director, seq=1_001, version=1)
    site.wait("the refusal", lambda: "downgrade" in site.log("pi-1"))
    assert site.version("pi-1") == 2


def test_another_publisher_takes_over_from_one_that_is_revoked(site: Site) -> None:
    fresh, pem = PrivateKey.generate_p256(), site.root / "fresh.pub.pem"
    pem.write_text(fresh.public.pem)
    fresh.save(site.root / "fresh.pem")
    keys(site, "add-publisher", pem, *roots(site))
    keys(site, "refresh", "--key", site.root / "fresh.pem")
    stolen = site.publisher
    keys(site, "revoke", "publisher", stolen.public.id[:12], *roots(site))
    assert "no publisher" in keys(site, "refresh", "--key", site.key, ok=(1,))
    by_the_thief = make_bundle(site.root / "thief", 3, key=stolen)
    site.fleet("push-model", by_the_thief, "--key", site.key, ok=(3,))
    bundle = make_bundle(site.root / "bundles", 3, key=fresh)
    out = site.fleet("push-model", bundle, "--key", site.root / "fresh.pem", "--json")
    rollout = json.loads(out)["id"]
    site.wait("the new publisher", lambda: site.rollout_state(rollout) == "completed")
    assert site.version("pi-1") == 3


def test_one_root_key_changes_nothing_and_new_ones_take_over(site: Site) -> None:
    one = ("--root", site.root / "offline" / "root-1.pem")
    pem = site.root / "x.pub.pem"
    pem.write_text(PrivateKey.generate_p256().public.pem)
    assert "2 root keys are needed" in keys(site, "add-publisher", pem, *one, ok=(1,))
    keys(site, "rotate", "root", "--out", site.root / "offline2", *roots(site))
    assert "2 root keys are needed" in keys(site, "add-publisher", pem, *roots(site), ok=(1,))
    deploy(site, 3)


def forge(
    site: Site,
    director: PrivateKey,
    *,
    seq: int,
    version: int = 0,
    bundle: Path | None = None,
    target: Target | None = None,
    device: str = "pi-1",
) -> None:
    """An order by whoever has this key and the broker's service certificate."""
    target = target or target_of(bundle or site.root / "bundles" / f"digits-{version}")
    now = int(time.time())
    order = order_of(
        target,
        seq=seq,
        device=device,
        issued=now,
        expires=now + 600,
        sources=(f"{site.url}/blobs",),
    )
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "", protocol=mqtt.MQTTv5)
    folder = site.data / "keys"
    client.tls_set(folder / "ca.pem", folder / "service.crt", folder / "service.key")
    client.connect("127.0.0.1", site.mqtt_port)
    client.loop_start()
    raw = messages.seal_order(order, director)
    client.publish(topic("demo", device, Channel.DESIRED), raw, qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()
