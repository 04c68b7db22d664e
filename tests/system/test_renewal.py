"""A certificate that is about to end is replaced; the device stays online."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509

from edgefleet_agent import identity as identities
from edgefleet_agent.adapters.mqtt_link import MqttLink
from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.config import MqttConfig
from edgefleet_agent.renewal import Renewal, is_due
from edgefleet_contract import messages
from edgefleet_contract.enrolment import CertificateResponse
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet.authority import Authority
from tests.agent.bundles import make_bundle
from tests.agent.hosting import until
from tests.system.site import Site, open_site

NOW = datetime(2026, 11, 1, tzinfo=UTC)

# paho makes a pair of sockets at each start of its loop, and leaves the one before to the collector
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


def certificate_for(authority: Authority, key: PrivateKey, *, now: datetime) -> str:
    return authority.issue_client("pi-1", key.public, now=now, days=1).pem


@pytest.mark.parametrize(("hours", "due"), [(0, False), (15, False), (17, True), (30, True)])
def test_a_certificate_is_due_when_a_third_of_its_life_is_left(hours: int, due: bool) -> None:
    authority, key = Authority.create("demo", now=NOW), PrivateKey.generate_p256()
    pem = certificate_for(authority, key, now=NOW)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert is_due(certificate, (NOW + timedelta(hours=hours)).timestamp()) is due


@pytest.mark.system
def test_a_device_whose_certificate_is_about_to_end_renews_it_and_stays_in_service(
    tmp_path: Path,
) -> None:
    with open_site(tmp_path) as site:
        state = site.enrol("pi-1")
        path = state / "identity" / "device.crt"
        keys = site.data / "keys"
        authority = Authority.load((keys / "ca.pem").read_bytes(), (keys / "ca.key").read_bytes())
        key = PrivateKey.load(state / "identity" / "device.key")
        nearly = certificate_for(authority, key, now=datetime.now(UTC) - timedelta(hours=23))
        path.write_text(nearly)
        age_the_known_certificate(site.data / "fleet.db")
        site.start_agent("pi-1")
        site.wait("the new certificate", lambda: "certificate: renewed" in site.log("pi-1"))
        renewed = x509.load_pem_x509_certificate(path.read_bytes())
        assert renewed.not_valid_after_utc - datetime.now(UTC) > timedelta(days=80)
        assert not path.with_name("device.crt.next").exists()
        site.wait("the device", lambda: site.get("/devices/pi-1")["online"])
        (row,) = [row for row in site.get("/audit")["audit"] if row["what"] == "device.renew"]
        assert row["subject"] == "pi-1"
        listed = site.get("/devices/pi-1")["certificate_expires"]
        assert listed == int(renewed.not_valid_after_utc.timestamp())

        # what it holds now is what it comes back with, and nothing is renewed twice
        assert site.stop("pi-1") == 0
        site.start_agent("pi-1")
        site.wait("the device", lambda: site.get("/devices/pi-1")["online"])
        assert site.log("pi-1").count("certificate: renewed") == 1


def age_the_known_certificate(database: Path) -> None:
    import sqlite3

    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE certificate SET issued_at = issued_at - 5000000")
    connection.close()


@dataclass
class Linked:
    """A device's real link and renewal on the site's broker, and who listens to what it says."""

    site: Site
    link: MqttLink
    renewal: Renewal
    identity: identities.Identity
    observer: mqtt.Client
    orders: list[bytes] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    connections: list[bool] = field(default_factory=list)

    def say(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        """In the control room's name, which loses its own connection by it for a moment, and may
        take this one's away before the message has left: then it leaves with the next."""
        service, published = client(self.site, "service"), threading.Event()
        service.on_publish = lambda *_: published.set()
        name = topic("demo", "pi-1", channel)
        service.publish(name, payload, qos=1, retain=retain)
        assert published.wait(10)
        service.disconnect()
        service.loop_stop()

    def next_certificate(self, *, good: bool) -> bytes:
        """An answer of the authority; one that is not good yet is refused by the broker alone."""
        keys = self.site.data / "keys"
        authority = Authority.load((keys / "ca.pem").read_bytes(), (keys / "ca.key").read_bytes())
        key = PrivateKey.load(self.identity.key)
        begin = datetime.now(UTC) + (timedelta() if good else timedelta(days=2))
        pem = authority.issue_client("pi-1", key.public, now=begin, days=200).pem
        return messages.render(CertificateResponse("pi-1", pem))

    @property
    def serial(self) -> int:
        raw = self.identity.certificate.read_bytes()
        return x509.load_pem_x509_certificate(raw).serial_number


def client(site: Site, name: str) -> mqtt.Client:
    """A connection with one of the control room's certificates."""
    found = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "", protocol=mqtt.MQTTv5)
    keys = site.data / "keys"
    found.tls_set(keys / "ca.pem", keys / f"{name}.crt", keys / f"{name}.key")
    found.connect("127.0.0.1", site.mqtt_port)
    found.loop_start()
    return found


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Linked]:
    with open_site(tmp_path) as site:
        identity = identities.load(site.enrol("pi-1"))
        observer = client(site, "observer")
        link = MqttLink(
            identity,
            MqttConfig(),
            boot_id="boot",
            on_order=lambda raw: found.orders.append(raw),
            on_trust=lambda *_: None,
            on_connected=lambda: found.connections.append(True),
            on_certificate=lambda _: None,
            on_block=lambda _: None,
            on_expired=lambda: None,
        )
        renewal = Renewal(identity, link=link, tls=Tls.of(identity))
        found = Linked(site, link, renewal, identity, observer)
        subscribed = threading.Event()
        observer.on_subscribe = lambda *_: subscribed.set()
        observer.on_message = lambda *words: found.heard.append(words[2].payload)
        observer.subscribe(topic("demo", "pi-1", Channel.EVENT), 1)
        assert subscribed.wait(10)
        link.start()
        until(lambda: bool(found.connections))
        try:
            yield found
        finally:
            link.stop()
            observer.disconnect()
            observer.loop_stop()


@pytest.mark.system
@pytest.mark.parametrize("good", [True, False], ids=["taken", "refused"])
@pytest.mark.parametrize("retain", [True, False], ids=["retained", "not retained"])
def test_nothing_is_lost_while_a_device_changes_its_certificate(
    linked: Linked, good: bool, retain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that comes while it is away arrives, and so does what it says meanwhile; once
    with a certificate that the broker takes, once with one that it refuses."""
    before = linked.serial
    start = linked.link.start

    def start_late() -> None:
        """Between the old connection and the new one: here everything must wait."""
        assert not linked.link.is_connected
        linked.say(Channel.DESIRED, b"an order", retain=retain)
        linked.link.publish(Channel.EVENT, b"an event")
        start()

    monkeypatch.setattr(linked.link, "start", start_late)
    linked.renewal.take(linked.next_certificate(good=good))
    until(lambda: b"an order" in linked.orders and b"an event" in linked.heard)
    until(lambda: linked.link.is_connected)
    assert (linked.serial != before) is good
    linked.say(Channel.DESIRED, b"the next order", retain=retain)
    until(lambda: b"the next order" in linked.orders)


@pytest.mark.system
def test_a_certificate_that_the_broker_refused_is_left_alone_until_it_is_time_again(
    linked: Linked,
) -> None:
    """The answer is retained: told again at each connection, it must not end each connection."""
    before, refused = linked.serial, linked.next_certificate(good=False)
    for _ in range(3):
        linked.renewal.take(refused)
        until(lambda: linked.link.is_connected and len(linked.connections) == 2)
    assert linked.serial == before
    linked.renewal.take(linked.next_certificate(good=True))
    until(lambda: linked.serial != before)
    until(lambda: len(linked.connections) == 3)


@pytest.mark.system
def test_a_link_that_has_ended_does_not_come_up_for_a_certificate(linked: Linked) -> None:
    """One that is tried in a thread while the agent ends."""
    linked.link.stop()
    linked.link.use_certificate()
    assert linked.link._client._thread is None


@pytest.mark.system
def test_an_agent_whose_new_certificate_is_refused_stays_in_service_with_the_old_one(
    linked: Linked,
) -> None:
    """The whole process: the broker refuses, the device goes back, and takes the next order."""
    linked.link.stop()
    site = linked.site
    linked.say(Channel.ENROL_RESPONSE, linked.next_certificate(good=False), retain=True)
    site.start_agent("pi-1")
    site.wait("the way back", lambda: "back to the old one" in site.log("pi-1"))
    rollout = site.push(make_bundle(site.root / "bundles", 1, key=site.publisher))
    site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed")
    assert site.log("pi-1").count("back to the old one") == 1
    assert "certificate: renewed" not in site.log("pi-1")
