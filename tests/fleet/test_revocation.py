"""A device that was revoked is off the broker, and stays off it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509

from edgefleet_contract.topics import Channel
from edgefleet_fleet.authority import Authority
from edgefleet_fleet.errors import Conflict, Denied, NotFound
from edgefleet_fleet.services import Services
from tests.fleet.device import Connection, Device, Identity, new_key, request_of, system_sample
from tests.fleet.running import Fleet, until
from tests.fleet.stage import FLEET, ME, Clock, Stage

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def serials(services: Services) -> set[int]:
    raw = services.room.keys.revocations.read_bytes()
    found = x509.load_pem_x509_crl(raw)
    key = services.room.authority.certificate.public_key()
    assert found.is_signature_valid(key)  # type: ignore[arg-type] # the authority's is ECDSA
    return {entry.serial_number for entry in found}


def enrol_again(services: Services, name: str, key: object) -> int:
    claim = services.enrolment.make_claim(uses=1, hours=1, actor=ME)[1].render()
    answer = services.enrolment.enrol(request_of(claim, name, key), address="")  # type: ignore[arg-type]
    return x509.load_pem_x509_certificate(answer.certificate.encode()).serial_number


def test_the_list_says_what_was_taken_back_and_outlives_no_authority() -> None:
    authority = Authority.create(FLEET, now=NOW)
    found = x509.load_pem_x509_crl(authority.revocation_list([("1f", 5)], now=NOW).encode())
    entry = found.get_revoked_certificate_by_serial_number(0x1F)
    assert entry is not None
    assert entry.revocation_date_utc == datetime.fromtimestamp(5, UTC)
    assert found.next_update_utc == authority.certificate.not_valid_after_utc
    assert found.get_revoked_certificate_by_serial_number(0x20) is None


def test_every_certificate_that_a_device_ever_had_is_on_the_list(services: Services) -> None:
    key, other = new_key(), new_key()
    had = {enrol_again(services, "a", key), enrol_again(services, "a", key)}
    enrol_again(services, "b", other)
    services.enrolment.revoke("a", actor=ME)
    assert serials(services) == had


def test_forgetting_takes_the_certificates_back_as_well(services: Services) -> None:
    key = new_key()
    had = enrol_again(services, "a", key)
    services.enrolment.forget("a", actor=ME)
    assert serials(services) == {had}
    enrol_again(services, "a", key)  # the key itself was not revoked
    assert serials(services) == {had}


def test_a_revoked_key_gets_no_certificate_under_any_name(services: Services) -> None:
    key = new_key()
    enrol_again(services, "a", key)
    services.enrolment.revoke("a", actor=ME)
    for name in ("a", "b"):
        with pytest.raises(Denied, match="revoked"):
            enrol_again(services, name, key)
    services.enrolment.forget("a", actor=ME)
    with pytest.raises(Denied, match="key was revoked"):
        enrol_again(services, "a", key)
    enrol_again(services, "a", new_key())


def test_a_revoked_device_stays_in_sight_and_out_of_rollouts(stage: Stage) -> None:
    stage.devices("a", "b")
    stage.services.enrolment.revoke("a", actor=ME)
    rollout = stage.roll_out(1)
    assert set(stage.view(rollout)["counts"].items()) >= {("total", 1)}
    assert stage.order("a") is None
    stage.take("a", Channel.TELEMETRY_SYSTEM, b"{}")
    assert stage.services.ingest.dropped["unknown_device"] == 1
    with stage.services.room.store.begin() as tx:
        assert [device.id for device in tx.devices.list(revoked=True)] == ["a", "b"]
    with pytest.raises(Conflict):
        stage.services.enrolment.revoke("a", actor=ME)
    with pytest.raises(NotFound):
        stage.services.enrolment.revoke("nobody", actor=ME)


def test_a_lost_list_is_made_again_whole(services: Services, clock: Clock) -> None:
    had = enrol_again(services, "a", new_key())
    services.enrolment.revoke("a", actor=ME)
    services.room.keys.revocations.unlink()
    clock.now += 365 * 24 * 3600
    services.enrolment.certificates.write_list()
    assert serials(services) == {had}


@pytest.mark.system
def test_a_revoked_device_is_cut_off_and_cannot_come_back_and_another_stays_in_service(
    fleet: Fleet, identities: dict[str, Identity]
) -> None:
    a, b = identities["a"], identities["b"]
    with Device(a, FLEET) as revoked, Device(b, FLEET) as other:
        until(lambda: fleet.is_online(a.name) and fleet.is_online(b.name))
        done = fleet.run("devices", "revoke", a.name)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        revoked.lost.get(timeout=10)
        other.lost.get(timeout=10)  # the broker was started anew, and takes it back
        until(other.client.is_connected)
        other.publish(other.topic(Channel.TELEMETRY_SYSTEM), b"{}")
        assert is_refused(a, fleet)
    listed = fleet.run("devices", "list").stdout
    assert "revoked" in next(line for line in listed.splitlines() if a.name in line)

    fleet.stop()
    fleet.data.joinpath("broker", "revoked.pem").unlink()
    fleet.start()
    assert is_refused(a, fleet)
    with Device(b, FLEET) as other:
        other.say(Channel.TELEMETRY_SYSTEM, system_sample(b.name))
        until(lambda: fleet.client.get(f"/devices/{b.name}")["telemetry"]["system"])


def is_refused(identity: Identity, fleet: Fleet) -> bool:
    """Whether the broker closes the connection of somebody before it hears a word."""
    client = Connection(identity.folder, "device", identity.host, fleet.mqtt_port, identity.name)
    try:
        client.client.connect(identity.host, fleet.mqtt_port)
        client.client.loop_start()
        client.lost.get(timeout=10)
        return client.client.is_connected() is False
    except (ssl.SSLError, ConnectionError):
        return True
    finally:
        client.client.loop_stop()
