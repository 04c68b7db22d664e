"""Whose certificate is renewed, and whose is not."""

from __future__ import annotations

from cryptography import x509

from edgefleet_contract.enrolment import CertificateRequest, CertificateResponse
from edgefleet_contract.messages import parse, render
from edgefleet_contract.topics import Channel, topic
from edgefleet_fleet.services import Services
from tests.fleet.device import csr_of, new_key, request_of
from tests.fleet.stage import FLEET, ME, Clock, Outbox, Stage

MONTH_S = 30 * 24 * 3600


def enrol(services: Services, name: str) -> object:
    key = new_key()
    claim = services.enrolment.make_claim(uses=1, hours=1, actor=ME)[1].render()
    services.enrolment.enrol(request_of(claim, name, key), address="")
    return key


def ask(stage: Stage, name: str, key: object) -> bytes:
    request = CertificateRequest(name, csr_of(key, name))  # type: ignore[arg-type]
    stage.take(name, Channel.ENROL_REQUEST, render(request))
    link = stage.services.room.link
    assert isinstance(link, Outbox)
    return link.retained.get(topic(FLEET, name, Channel.ENROL_RESPONSE), b"")


def test_the_key_that_enrolled_gets_its_next_certificate(stage: Stage, clock: Clock) -> None:
    key = enrol(stage.services, "a")
    clock.now += 2 * MONTH_S
    answer = parse(CertificateResponse, ask(stage, "a", key), device="a")
    found = x509.load_pem_x509_certificate(answer.certificate.encode())
    assert found.not_valid_after_utc.timestamp() == clock.now + 3 * MONTH_S
    with stage.services.room.store.begin() as tx:
        device = tx.devices.get("a")
    assert device is not None
    assert int(device.certificate_serial, 16) == found.serial_number


def test_another_key_gets_nothing(stage: Stage, clock: Clock) -> None:
    enrol(stage.services, "a")
    clock.now += 2 * MONTH_S
    assert ask(stage, "a", new_key()) == b""
    assert stage.services.ingest.dropped["malformed"] == 1


def test_whoever_asks_again_and_again_gets_one(stage: Stage, clock: Clock) -> None:
    key = enrol(stage.services, "a")
    assert ask(stage, "a", key) == b""
    clock.now += 2 * MONTH_S
    first = ask(stage, "a", key)
    assert first
    assert ask(stage, "a", key) == first


def test_a_revoked_device_is_not_renewed(stage: Stage, clock: Clock) -> None:
    key = enrol(stage.services, "a")
    clock.now += 2 * MONTH_S
    assert ask(stage, "a", key)
    stage.services.enrolment.revoke("a", actor=ME)
    clock.now += 2 * MONTH_S
    assert ask(stage, "a", key) == b""
    assert stage.services.ingest.dropped["unknown_device"] == 1
