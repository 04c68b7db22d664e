"""Who comes in with a claim: at once, by a list of names, or when an operator says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from cryptography.hazmat.primitives.asymmetric import ec

from edgefleet_contract.enrolment import EnrolPending, EnrolResponse
from edgefleet_contract.errors import OperatorError, TransientError
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_contract.messages import parse, render
from edgefleet_contract.trust import parse_claim
from edgefleet_fleet.adapters.sql.store import sqlite_url
from edgefleet_fleet.admission import parse_list
from edgefleet_fleet.api import create_app
from edgefleet_fleet.approvals import MAX_OPEN, retry_after
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.errors import Conflict, Denied, NotFound
from edgefleet_fleet.records import EnrolmentRequest, RequestState
from edgefleet_fleet.roles import Role
from edgefleet_fleet.services import Services
from edgefleet_fleet.work import Actor
from tests.fleet.device import new_key, request_of
from tests.fleet.stage import ME, TOKEN, Clock, add_publisher
from tests.fleet.web import Web, serving

AUTH = {"Authorization": f"Bearer {TOKEN}"}
HTML = {"Accept": "text/html"}
ADA = Actor("ada", "10.0.0.7")
OTHER = "cd" * 32


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path) -> str:  # type: ignore[no-untyped-def]
    """Every story here is told on both data bases."""
    if request.param == "sqlite":
        return sqlite_url(DataDir(tmp_path / "data").database)
    url: str = request.getfixturevalue("cluster").new_database()
    return url


def id_of(key: ec.EllipticCurvePrivateKey) -> str:
    return PublicKey.wrap(key.public_key()).id


def claim(services: Services, *named: str, approve: bool = False, uses: int | None = None) -> str:
    listed = parse_list("\n".join(named), what="list")
    made = services.enrolment.make_claim(
        uses=uses, hours=1, actor=ME, approve=approve, listed=listed
    )
    return made[1].render()


def ask(
    services: Services, line: str, name: str, key: ec.EllipticCurvePrivateKey
) -> EnrolResponse | EnrolPending:
    return services.enrolment.enrol(request_of(line, name, key), address="10.0.0.9")


def waits(answer: EnrolResponse | EnrolPending) -> bool:
    return isinstance(answer, EnrolPending)


def approve(services: Services, name: str, key_id: str = "") -> None:
    services.enrolment.approvals.approve(name, key_id=key_id, actor=ADA)


def deny(services: Services, name: str) -> None:
    services.enrolment.approvals.deny(name, actor=ADA)


def uses_left(services: Services) -> int:
    with services.room.store.begin() as tx:
        return tx.claims.list()[0].uses_left


def waiting(services: Services) -> list[tuple[str, str]]:
    with services.room.store.begin() as tx:
        found = tx.requests.open(at=int(services.room.clock()))
    return [(request.device, request.state.value) for request in found]


def has_no_trace_of(services: Services, name: str) -> bool:
    with services.room.store.begin() as tx:
        return tx.devices.get(name) is None and tx.certificates.newest(name) is None


def test_nobody_comes_in_by_a_claim_with_approval_until_an_operator_says_so(
    services: Services,
) -> None:
    line, key = claim(services, approve=True), new_key()
    answer = ask(services, line, "pi-1", key)
    assert answer == EnrolPending("pi-1", id_of(key), 2)
    assert has_no_trace_of(services, "pi-1")
    assert waiting(services) == [("pi-1", "waiting")]
    approve(services, "pi-1", id_of(key)[:16])
    assert has_no_trace_of(services, "pi-1")
    assert waiting(services) == [("pi-1", "approved")]
    assert isinstance(ask(services, line, "pi-1", key), EnrolResponse)
    assert waiting(services) == []
    with services.room.store.begin() as tx:
        found = tx.devices.get("pi-1")
    assert found is not None
    assert found.key_id == id_of(key)


def test_the_same_request_asked_again_is_the_same_and_costs_one_use(services: Services) -> None:
    line, key = claim(services, approve=True, uses=2), new_key()
    for _ in range(3):
        assert waits(ask(services, line, "pi-1", key))
    assert uses_left(services) == 1
    approve(services, "pi-1")
    assert not waits(ask(services, line, "pi-1", key))
    assert uses_left(services) == 1


def test_an_answer_that_was_lost_is_given_again_but_not_without_end(
    services: Services, clock: Clock
) -> None:
    line, key = claim(services, approve=True), new_key()
    ask(services, line, "pi-1", key)
    approve(services, "pi-1")
    ask(services, line, "pi-1", key)
    with pytest.raises(TransientError, match="just now"):
        ask(services, line, "pi-1", key)
    clock.now += 60
    assert not waits(ask(services, line, "pi-1", key))


def test_another_key_cannot_take_the_place_of_one_that_waits(services: Services) -> None:
    line, key = claim(services, approve=True, uses=3), new_key()
    ask(services, line, "pi-1", key)
    with pytest.raises(Conflict, match="asked for the name 'pi-1' first") as refused:
        ask(services, line, "pi-1", new_key())
    assert "fleet devices deny pi-1" in refused.value.hint
    approve(services, "pi-1")
    with pytest.raises(Conflict, match="asked for the name 'pi-1' first"):
        ask(services, line, "pi-1", new_key())
    assert uses_left(services) == 2


def test_an_operator_approves_the_key_that_the_device_prints_and_no_other(
    services: Services,
) -> None:
    line, squatter, honest = claim(services, approve=True, uses=2), new_key(), new_key()
    ask(services, line, "pi-1", squatter)
    with pytest.raises(Conflict, match=id_of(squatter)[:16]):
        approve(services, "pi-1", id_of(honest)[:16])
    with pytest.raises(OperatorError, match="16 digits"):
        approve(services, "pi-1", id_of(squatter)[:15])
    deny(services, "pi-1")
    assert waits(ask(services, line, "pi-1", honest))
    approve(services, "pi-1", id_of(honest).upper())
    assert not waits(ask(services, line, "pi-1", honest))


def test_a_denied_device_is_told_so_and_its_key_stays_out(services: Services) -> None:
    line, key = claim(services, approve=True, uses=5), new_key()
    ask(services, line, "pi-1", key)
    deny(services, "pi-1")
    for _ in range(2):
        with pytest.raises(Denied, match="an operator denied 'pi-1'"):
            ask(services, line, "pi-1", key)
    assert (waiting(services), uses_left(services)) == ([], 4)
    assert has_no_trace_of(services, "pi-1")
    with pytest.raises(NotFound):
        approve(services, "pi-1")


def test_an_approval_that_was_not_fetched_can_be_taken_back(services: Services) -> None:
    line, key = claim(services, approve=True), new_key()
    ask(services, line, "pi-1", key)
    approve(services, "pi-1")
    deny(services, "pi-1")
    with pytest.raises(Denied, match="an operator denied"):
        ask(services, line, "pi-1", key)


def test_a_request_survives_a_restart_of_the_control_room(services: Services) -> None:
    from edgefleet_fleet.services import services_of

    line, key = claim(services, approve=True), new_key()
    ask(services, line, "pi-1", key)
    again = services_of(services.room, services.publications)
    approve(again, "pi-1")
    assert not waits(ask(again, line, "pi-1", key))


@pytest.mark.parametrize("approved", [False, True])
def test_a_request_ends_with_its_claim(services: Services, clock: Clock, approved: bool) -> None:
    line, key = claim(services, approve=True), new_key()
    ask(services, line, "pi-1", key)
    if approved:
        approve(services, "pi-1")
    clock.now += 3600
    assert waiting(services) == []
    with pytest.raises(Denied, match="past its date"):
        ask(services, line, "pi-1", key)
    with pytest.raises(Conflict, match="past its date"):
        approve(services, "pi-1")


@pytest.mark.parametrize("approved", [False, True])
def test_nobody_is_let_in_by_a_claim_that_was_revoked_since(
    services: Services, approved: bool
) -> None:
    line, key = claim(services, approve=True), new_key()
    ask(services, line, "pi-1", key)
    if approved:
        approve(services, "pi-1")
    services.enrolment.revoke_claim(1, actor=ME)
    assert waiting(services) == []
    with pytest.raises(Conflict, match="the claim was revoked"):
        approve(services, "pi-1")
    with pytest.raises(Denied, match="the claim was revoked"):
        ask(services, line, "pi-1", key)
    assert has_no_trace_of(services, "pi-1")


def test_a_new_root_ends_what_waits(services: Services, roots: list[PrivateKey]) -> None:
    line, key = claim(services, approve=True), new_key()
    ask(services, line, "pi-1", key)
    add_publisher(services, PrivateKey.generate_p256(), roots)
    with pytest.raises(Conflict, match="root changed"):
        approve(services, "pi-1")
    with pytest.raises(Denied, match="root changed"):
        ask(services, line, "pi-1", key)


def test_a_name_that_was_approved_is_kept_for_its_key(services: Services) -> None:
    slow, key = claim(services, approve=True), new_key()
    ask(services, slow, "pi-1", key)
    approve(services, "pi-1")
    with pytest.raises(Conflict, match="approved for another key"):
        ask(services, claim(services), "pi-1", new_key())
    assert uses_left(services) == 1
    assert not waits(ask(services, slow, "pi-1", key))


def test_a_name_that_was_given_away_since_is_not_given_again(services: Services) -> None:
    slow, key = claim(services, approve=True), new_key()
    ask(services, slow, "pi-1", key)
    assert not waits(ask(services, claim(services), "pi-1", new_key()))
    assert waiting(services) == []
    with pytest.raises(NotFound):
        approve(services, "pi-1")
    with pytest.raises(Conflict, match="another key is enrolled"):
        ask(services, slow, "pi-1", key)


def test_a_revoked_key_does_not_even_wait(services: Services) -> None:
    line, key = claim(services, approve=True, uses=2), new_key()
    ask(services, claim(services), "pi-1", key)
    services.enrolment.revoke("pi-1", actor=ME)
    with pytest.raises(Denied, match="'pi-1' was revoked"):
        ask(services, line, "pi-1", key)
    with pytest.raises(Denied, match="key was revoked"):
        ask(services, line, "pi-2", key)
    assert waiting(services) == []


def test_a_forgotten_device_waits_again(services: Services) -> None:
    line, key = claim(services, approve=True, uses=2), new_key()
    ask(services, line, "pi-1", key)
    approve(services, "pi-1")
    ask(services, line, "pi-1", key)
    services.enrolment.forget("pi-1", actor=ME)
    assert waits(ask(services, line, "pi-1", key))
    assert uses_left(services) == 0


def test_another_claim_makes_another_request(services: Services, clock: Clock) -> None:
    key = new_key()
    ask(services, claim(services, approve=True), "pi-1", key)
    deny(services, "pi-1")
    second = claim(services, approve=True)
    assert waits(ask(services, second, "pi-1", key))
    clock.now += 3600
    assert waits(ask(services, claim(services, approve=True), "pi-1", new_key()))


def test_no_more_than_so_many_wait_and_the_claim_is_not_spent_by_more(services: Services) -> None:
    line = claim(services, approve=True, uses=5)
    with services.room.store.begin() as tx:
        for number in range(MAX_OPEN):
            row = EnrolmentRequest(
                f"x-{number}", OTHER, 1, RequestState.WAITING, "pi5", "Pi 5", "", 1
            )
            tx.requests.put(row, at=1)
    with pytest.raises(TransientError, match=f"{MAX_OPEN} devices wait"):
        ask(services, line, "pi-1", new_key())
    assert uses_left(services) == 5
    deny(services, "x-7")
    assert waits(ask(services, line, "pi-1", new_key()))


def test_a_device_asks_soon_at_first_and_rarely_later() -> None:
    assert [retry_after(age) for age in (0, 20, 100, 599, 600, 10**6)] == [2, 2, 10, 59, 60, 60]


def test_who_let_a_device_in_stands_in_the_audit_trail(services: Services) -> None:
    line, key, other = claim(services, approve=True, uses=2), new_key(), new_key()
    ask(services, line, "pi-1", key)
    ask(services, line, "pi-2", other)
    approve(services, "pi-1")
    deny(services, "pi-2")
    with services.room.store.begin() as tx:
        rows = [row for row in tx.ledger.audit() if row.what.startswith("request.")]
    assert [(row.who, row.address, row.what, row.subject) for row in reversed(rows)] == [
        ("device:pi-1", "10.0.0.9", "request.make", "pi-1"),
        ("device:pi-2", "10.0.0.9", "request.make", "pi-2"),
        ("ada", "10.0.0.7", "request.approve", "pi-1"),
        ("ada", "10.0.0.7", "request.deny", "pi-2"),
    ]
    assert all(id_of(key) in row.detail for row in rows if row.subject == "pi-1")


def test_a_claim_for_names_lets_them_in_at_once_and_nobody_else(services: Services) -> None:
    line = claim(services, "pi-1", "pi-2")
    assert uses_left(services) == 2
    with pytest.raises(Denied, match="not for 'pi-3'"):
        ask(services, line, "pi-3", new_key())
    assert has_no_trace_of(services, "pi-3")
    assert (waiting(services), uses_left(services)) == ([], 2)
    for name in ("pi-1", "pi-2"):
        assert not waits(ask(services, line, name, new_key()))
    assert uses_left(services) == 0


@pytest.mark.parametrize("with_approval", [False, True])
def test_a_name_whose_key_is_listed_is_given_to_no_other_key(
    services: Services, with_approval: bool
) -> None:
    key = new_key()
    line = claim(services, f"pi-1 {id_of(key)}", approve=with_approval)
    with pytest.raises(Denied, match="another key"):
        ask(services, line, "pi-1", new_key())
    assert (waiting(services), uses_left(services)) == ([], 1)
    assert not waits(ask(services, line, "pi-1", key))


def test_with_a_list_and_approval_the_listed_come_in_and_the_others_wait(
    services: Services,
) -> None:
    line = claim(services, "pi-1", approve=True, uses=2)
    assert not waits(ask(services, line, "pi-1", new_key()))
    assert waits(ask(services, line, "pi-2", new_key()))


def test_a_list_of_one_claim_says_nothing_about_another(services: Services) -> None:
    claim(services, "pi-1")
    with pytest.raises(Denied, match="not for 'pi-1'"):
        ask(services, claim(services, "pi-2"), "pi-1", new_key())


def test_claims_of_before_let_everybody_in_and_none_does_after_a_way_back(
    services: Services,
) -> None:
    store = services.room.store
    claim(services)
    claim(services, approve=True)
    claim(services, "pi-1")
    config = AlembicConfig()
    config.set_main_option("script_location", "edgefleet_fleet:migrations")
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0005")
        connection.commit()
    store.migrate()
    with store.begin() as tx:
        found = [(row.revoked, row.approve, row.listed) for row in tx.claims.list()]
    assert found == [(True, False, 0), (True, False, 0), (False, False, 0)]


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        yield web


def test_a_device_that_waits_is_answered_202_until_it_was_approved(http: Web) -> None:
    made = http.post("/api/v1/claims", headers=AUTH, json={"approve": True}).json()
    assert (made["uses_left"], made["approve"], made["listed"]) == (1, True, 0)
    key = new_key()
    body = render(request_of(made["claim"], "pi-1", key))
    answer = http.post("/api/v1/enrol", data=body)
    assert answer.status_code == 202
    assert parse(EnrolPending, answer.content, device="pi-1").key_id == id_of(key)
    (shown,) = http.get("/api/v1/requests", headers=AUTH).json()["requests"]
    assert (shown["device"], shown["key_id"], shown["address"], shown["state"]) == (
        *("pi-1", id_of(key)),
        *("127.0.0.1", "waiting"),
    )
    assert parse_claim(made["claim"]).secret not in str(shown)
    wrong = http.post(f"/api/v1/requests/pi-1/approve?key_id={OTHER}", headers=AUTH)
    assert wrong.status_code == 409
    right = http.post(f"/api/v1/requests/pi-1/approve?key_id={id_of(key)}", headers=AUTH)
    assert (right.status_code, right.json()["state"]) == (200, "approved")
    answer = http.post("/api/v1/enrol", data=body)
    assert answer.status_code == 200
    assert "BEGIN CERTIFICATE" in parse(EnrolResponse, answer.content, device="pi-1").certificate


def test_a_list_over_http_is_held_against_the_rules(http: Web) -> None:
    for listed in ([{"device": "PI"}], [{"device": "a"}] * 2, [{"device": "a", "key_id": "x"}]):
        answer = http.post("/api/v1/claims", headers=AUTH, json={"listed": listed})
        assert (answer.status_code, answer.json()["reason"]) == (422, "malformed")
    made = http.post("/api/v1/claims", headers=AUTH, json={"listed": [{"device": "pi-1"}]}).json()
    refused = http.post("/api/v1/enrol", data=render(request_of(made["claim"], "x", new_key())))
    assert (refused.status_code, "not for 'x'" in refused.json()["detail"]) == (403, True)


def test_the_page_shows_who_waits_and_offers_operators_to_decide(
    http: Web, services: Services
) -> None:
    assert "Waiting for approval" not in http.get("/", headers=AUTH).text
    line, key = claim(services, approve=True, uses=2), new_key()
    ask(services, line, "pi-1", key)
    text = http.get("/", headers={**AUTH, **HTML}).text
    for shown in ("pi-1", id_of(key)[:8], "Raspberry Pi 5", "10.0.0.9"):
        assert shown in text, shown
    path = f"/api/v1/requests/pi-1/approve?key_id={id_of(key)}"
    assert f'data-post="{path}"' in text
    _, token = services.access.users.add("eve", Role.VIEWER, days=None, actor=ME)
    seen = http.get("/", headers={"Authorization": f"Bearer {token}"}).text
    assert ("Waiting for approval" in seen, "data-post" in seen) == (True, False)

    # what the button sends: the cookie of the page, and where it comes from
    http.get(f"/?token={TOKEN}")
    elsewhere = http.post(path, headers={"Sec-Fetch-Site": "same-site"})
    assert (elsewhere.status_code, waiting(services)) == (403, [("pi-1", "waiting")])
    assert http.post(path, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert "approved, not fetched yet" in http.get("/").text
    assert http.post("/api/v1/requests/pi-1/deny").status_code == 204
    assert "Waiting for approval" not in http.get("/").text
