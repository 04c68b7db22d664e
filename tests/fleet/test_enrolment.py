"""How a device becomes one of the fleet."""

from __future__ import annotations

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.trust import parse_claim
from edgefleet_fleet.authority import expiry_of
from edgefleet_fleet.errors import Conflict, Denied, NotFound
from edgefleet_fleet.services import Services
from tests.fleet.device import new_key, request_of
from tests.fleet.stage import ME, Clock, add_publisher


def claim(services: Services, *, uses: int = 1, hours: float = 1) -> str:
    return services.enrolment.make_claim(uses=uses, hours=hours, actor=ME)[1].render()


def test_a_claim_is_worth_a_certificate_and_the_root_that_it_names(
    services: Services, clock: Clock
) -> None:
    line = claim(services)
    answer = services.enrolment.enrol(request_of(line, "pi-1", new_key()), address="10.0.0.1")
    assert sha256(answer.root.encode()) == parse_claim(line).root_sha256
    assert answer.metadata == "http://fleet.example:8080/tuf"
    assert expiry_of(answer.certificate).timestamp() == clock.now + 90 * 24 * 3600
    assert (answer.mqtt_host, answer.mqtt_port) == ("fleet.example", 8883)
    with services.room.store.begin() as tx:
        (row,) = [row for row in tx.ledger.audit() if row.what == "device.enrol"]
        found = tx.devices.get("pi-1")
    assert (row.who, row.subject, row.address) == ("device:pi-1", "pi-1", "10.0.0.1")
    assert found is not None
    assert (found.hw, found.online) == ("pi5", False)


def test_the_store_never_sees_the_secret_of_a_claim(services: Services) -> None:
    secret = parse_claim(claim(services)).secret
    path = services.room.store.engine.url.database
    assert path is not None
    with services.room.store.begin() as tx:
        dump = repr(tx.claims.list()) + repr(tx.ledger.audit())
    assert secret not in dump


def test_a_claim_of_one_use_is_spent_after_it(services: Services) -> None:
    line = claim(services)
    services.enrolment.enrol(request_of(line, "pi-1", new_key()), address="")
    with pytest.raises(Denied, match="as often as it may"):
        services.enrolment.enrol(request_of(line, "pi-2", new_key()), address="")


def test_a_refused_enrolment_costs_no_use(services: Services) -> None:
    line = claim(services, uses=2)
    services.enrolment.enrol(request_of(line, "pi-1", new_key()), address="")
    with pytest.raises(Conflict):
        services.enrolment.enrol(request_of(line, "pi-1", new_key()), address="")
    services.enrolment.enrol(request_of(line, "pi-2", new_key()), address="")


def test_a_claim_ends_with_its_time(services: Services, clock: Clock) -> None:
    line = claim(services, hours=1)
    clock.now += 3600
    with pytest.raises(Denied, match="past its date"):
        services.enrolment.enrol(request_of(line, "pi-1", new_key()), address="")


def test_a_revoked_claim_is_worth_nothing(services: Services) -> None:
    number, made = services.enrolment.make_claim(uses=1, hours=1, actor=ME)
    services.enrolment.revoke_claim(number, actor=ME)
    with pytest.raises(Denied, match="revoked"):
        services.enrolment.enrol(request_of(made.render(), "pi-1", new_key()), address="")
    with pytest.raises(NotFound):
        services.enrolment.revoke_claim(99, actor=ME)


def test_an_unknown_secret_is_refused(services: Services) -> None:
    line = claim(services)
    other = line.replace(parse_claim(line).secret, "A" * 43)
    with pytest.raises(Denied, match="not known"):
        services.enrolment.enrol(request_of(other, "pi-1", new_key()), address="")


def test_a_new_root_ends_older_claims_and_says_so(
    services: Services, roots: list[PrivateKey]
) -> None:
    line = claim(services)
    add_publisher(services, PrivateKey.generate_p256(), roots)
    with pytest.raises(Denied, match="root changed") as refused:
        services.enrolment.enrol(request_of(line, "pi-1", new_key()), address="")
    assert "fleet devices claim" in refused.value.hint


def test_a_name_belongs_to_the_key_that_had_it_first(services: Services) -> None:
    line, key = claim(services, uses=5), new_key()
    services.enrolment.enrol(request_of(line, "pi-1", key), address="")
    services.enrolment.enrol(request_of(line, "pi-1", key), address="")
    with pytest.raises(Conflict, match="another key") as refused:
        services.enrolment.enrol(request_of(line, "pi-1", new_key()), address="")
    assert "fleet devices forget pi-1" in refused.value.hint
    services.enrolment.forget("pi-1", actor=ME)
    services.enrolment.enrol(request_of(line, "pi-1", new_key()), address="")


@pytest.mark.parametrize("name", ["edgefleet-service", "edgefleet-observer", "edgefleet-requester"])
def test_no_device_gets_a_name_that_the_broker_gives_rights_to(
    services: Services, name: str
) -> None:
    with pytest.raises(Denied, match="may be called"):
        services.enrolment.enrol(request_of(claim(services), name, new_key()), address="")


def test_without_a_root_there_is_no_claim(services: Services) -> None:
    with services.room.store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM tuf_document")
    with pytest.raises(OperatorError) as refused:
        claim(services)
    assert "fleet keys init" in refused.value.hint


def test_an_unknown_device_cannot_be_forgotten(services: Services) -> None:
    with pytest.raises(NotFound):
        services.enrolment.forget("nobody", actor=ME)
