"""The HTTP port over TLS: who gets in, who gets blobs, and who a certificate stops being."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgefleet_contract.bundle import sha256
from edgefleet_contract.enrolment import CertificateRequest, CertificateResponse
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_contract.messages import parse, render
from edgefleet_fleet.api import create_app
from edgefleet_fleet.authority import Authority, expiry_of, hosts_of
from edgefleet_fleet.config import Tls
from edgefleet_fleet.roles import Role
from edgefleet_fleet.services import Services
from edgefleet_fleet.tls import ServerTls
from tests.contract.makers import write_bundle
from tests.fleet.device import csr_of, new_key, request_of
from tests.fleet.stage import ME, TOKEN, Clock, push
from tests.fleet.web import Web, serving

AUTH = {"Authorization": f"Bearer {TOKEN}"}
CONTENT = b"0123456789" * 100


@pytest.fixture
def clock() -> Clock:
    """Now: certificates are judged by OpenSSL as well, which has the machine's clock."""
    found = Clock()
    found.now = int(datetime.now(UTC).timestamp())
    return found


@pytest.fixture
def tls(services: Services) -> ServerTls:
    """What the port shows, and whom it believes."""
    room = services.room
    room.config = dataclasses.replace(room.config, tls=Tls.OWN)
    room.base_url = "https://fleet.example:8080"
    found = ServerTls.of(room)
    assert found is not None
    return found


@pytest.fixture
def http(services: Services, tls: ServerTls) -> Iterator[Web]:
    """A control room with TLS, asked by whoever believes its authority."""
    room = services.room
    with serving(create_app(services), tls) as web:
        web.verify = str(room.keys.keys / "ca.pem")
        yield web


@pytest.fixture
def blob(services: Services, publisher: PrivateKey, tmp_path: Path) -> str:
    folder = write_bundle(tmp_path, publisher, content=CONTENT)
    push(services, folder)
    with services.room.store.begin() as tx:  # as an unsealed rollout does
        tx.bundles.set_in_clear(sha256((folder / "bundle.json").read_bytes()))
    return f"/blobs/{sha256(CONTENT)}"


@dataclasses.dataclass
class Board:
    """What a device has: a name, a key, and a certificate for it."""

    name: str
    folder: Path
    key: ec.EllipticCurvePrivateKey = dataclasses.field(default_factory=new_key)

    def enrol(self, services: Services) -> Board:
        claim = services.enrolment.make_claim(uses=1, hours=1, actor=ME)[1].render()
        request = request_of(claim, self.name, self.key)
        return self.take(services.enrolment.enrol(request, address="").certificate)

    def take(self, certificate: str) -> Board:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "device.crt").write_text(certificate)
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.folder / "device.key").write_bytes(pem)
        return self

    @property
    def public(self) -> PublicKey:
        return PublicKey.wrap(self.key.public_key())

    @contextlib.contextmanager
    def asking(self, http: Web) -> Iterator[Web]:
        """A client that comes with this certificate, and keeps its connection."""
        with Web(http.base) as web:
            web.verify = http.verify
            web.cert = (str(self.folder / "device.crt"), str(self.folder / "device.key"))
            yield web


@pytest.fixture
def board(services: Services, tmp_path: Path) -> Board:
    return Board("pi-1", tmp_path / "pi-1").enrol(services)


def test_a_device_in_service_gets_blobs_by_its_certificate(
    http: Web, blob: str, board: Board
) -> None:
    with board.asking(http) as web:
        answer = web.get(blob)
        assert (answer.status_code, answer.content) == (200, CONTENT)
        assert answer.headers["cache-control"].startswith("private")
        assert web.get(blob, headers={"Range": "bytes=5-9"}).content == b"56789"


def test_without_certificate_and_user_there_is_no_blob(http: Web, blob: str) -> None:
    answer = http.get(blob)
    assert (answer.status_code, CONTENT in answer.content) == (401, False)
    assert http.head(blob).status_code == 401
    assert http.get(f"/blobs/{'0' * 64}").status_code == 401  # nor what is there and what not


@pytest.mark.parametrize("role", list(Role))
def test_every_user_may_read_a_blob(http: Web, services: Services, blob: str, role: Role) -> None:
    _, token = services.access.users.add("somebody", role, days=None, actor=ME)
    answer = http.get(blob, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_the_cookie_of_a_page_is_for_https_only_and_lets_read_blobs(http: Web, blob: str) -> None:
    entered = http.get(f"/?token={TOKEN}")
    assert entered.status_code == 303
    assert "secure" in entered.headers["set-cookie"].lower().split("; ")
    assert http.get(blob).status_code == 200


def test_a_revoked_device_is_refused_at_once_also_on_an_open_connection(
    http: Web, services: Services, blob: str, board: Board
) -> None:
    with board.asking(http) as web, web.get(blob, stream=True) as first:
        assert first.status_code == 200
        sock = first.raw.connection.sock
        assert first.content == CONTENT
        services.enrolment.revoke("pi-1", actor=ME)
        with web.get(blob, stream=True) as second:
            assert second.raw.connection.sock is sock  # the same connection
            assert (second.status_code, CONTENT in second.content) == (403, False)


def test_a_forgotten_device_is_refused_and_its_name_does_not_help(
    http: Web, services: Services, blob: str, board: Board, tmp_path: Path
) -> None:
    services.enrolment.forget("pi-1", actor=ME)
    with board.asking(http) as web:
        assert web.get(blob).status_code == 403
        other = Board("pi-1", tmp_path / "other").enrol(services)
        assert web.get(blob).status_code == 403  # the name is another key's now
    with other.asking(http) as web:
        assert web.get(blob).status_code == 200


def test_a_certificate_that_is_not_good_ends_the_handshake(
    http: Web, services: Services, blob: str, board: Board
) -> None:
    now = datetime.now(UTC)
    stranger = Authority.create("demo", now=now)
    past = services.room.authority
    for pem in (
        stranger.issue_client("pi-1", board.public, now=now, days=1).pem,
        past.issue_client("pi-1", board.public, now=now - timedelta(days=2), days=1).pem,
        past.issue_server(("pi-1",), board.public, now=now, days=1).pem,
    ):
        board.take(pem)
        with board.asking(http) as web, pytest.raises(requests.ConnectionError):
            web.get(blob)


def test_a_certificate_of_another_fleet_of_the_site_is_no_device_here(
    http: Web, tls: ServerTls, blob: str, board: Board
) -> None:
    """The port believes both; the same name and key do not help."""
    now = datetime.now(UTC)
    other = Authority.create("other", now=now)
    with board.asking(http) as web:
        assert web.get(blob).status_code == 200
    board.take(other.issue_client("pi-1", board.public, now=now, days=1).pem)
    with board.asking(http) as web, pytest.raises(requests.ConnectionError):
        web.get(blob)
    tls.believe(other.pem)
    with board.asking(http) as web:
        answer = web.get(blob)
    assert (answer.status_code, CONTENT in answer.content) == (403, False)


def test_the_certificates_of_the_control_room_itself_are_no_devices(
    http: Web, services: Services, blob: str
) -> None:
    keys = services.room.keys.keys
    for stem in ("service", "observer"):
        http.cert = (str(keys / f"{stem}.crt"), str(keys / f"{stem}.key"))
        with Web(http.base) as web:
            web.verify, web.cert = http.verify, http.cert
            assert web.get(blob).status_code == 403


def test_what_proves_itself_stays_open(http: Web, services: Services) -> None:
    assert http.get("/healthz").status_code == 200
    root = http.get("/tuf/root.json")
    assert (root.status_code, root.headers["cache-control"]) == (200, "no-cache")
    claim = services.enrolment.make_claim(uses=1, hours=1, actor=ME)[1]
    assert sha256(root.content) == claim.root_sha256
    assert http.post("/api/v1/enrol", data=b"{}").status_code == 422
    assert http.get("/api/v1/devices").status_code == 401


def address(http: Web) -> tuple[str, int]:
    host, _, port = http.base.removeprefix("https://").partition(":")
    return host, int(port)


def test_plain_http_at_the_tls_port_fails_cleanly(http: Web) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(http.base.replace("https:", "http:") + "/healthz", timeout=5)
    assert http.get("/healthz").status_code == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_below_1_2_is_refused(http: Web) -> None:
    for version, is_fine in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.create_default_context(cafile=str(http.verify))
        context.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL itself would not even ask
        context.minimum_version = version
        context.maximum_version = version
        with socket.create_connection(address(http), timeout=5) as raw:
            if is_fine:
                with context.wrap_socket(raw, server_hostname="localhost") as secured:
                    assert secured.version() == "TLSv1.2"
            else:
                with pytest.raises(ssl.SSLError):
                    context.wrap_socket(raw, server_hostname="localhost")


def test_without_tls_a_digest_is_the_right_to_read_a_blob(services: Services, blob: str) -> None:
    with serving(create_app(services)) as web:
        answer = web.get(blob)
        assert (answer.status_code, answer.headers["cache-control"][:6]) == (200, "public")


def test_the_own_certificate_stands_for_the_names_that_devices_are_told(
    services: Services,
) -> None:
    room = services.room
    room.config = dataclasses.replace(room.config, tls=Tls.OWN, public_host="f.example")
    room.base_url = "https://fleet.example:8080"
    ServerTls.of(room)
    made = room.keys.keys / "https.crt"
    names = {"localhost", "127.0.0.1", "::1", "f.example", "fleet.example"}
    assert names <= hosts_of(made.read_text())
    assert (room.keys.keys / "https.key").stat().st_mode & 0o777 == 0o600
    before = made.read_bytes()
    ServerTls.of(room)
    assert made.read_bytes() == before


def test_files_that_are_no_certificate_are_named(services: Services, tmp_path: Path) -> None:
    room = services.room
    named = {"tls_cert": str(tmp_path / "no.crt"), "tls_key": str(tmp_path / "no.key")}
    room.config = dataclasses.replace(room.config, **named)
    with pytest.raises(OperatorError, match=r"no\.crt") as refused:
        ServerTls.of(room)
    assert "tls_cert" in refused.value.hint


def test_a_certificate_from_elsewhere_is_shown_and_read_again(
    http: Web, services: Services, tmp_path: Path
) -> None:
    """Whoever renews the files (certbot, say) need not start the control room again."""
    key, first, second = (
        PrivateKey.generate_p256(),
        *(Authority.create("elsewhere", now=datetime.now(UTC)) for _ in range(2)),
    )
    key.save(tmp_path / "web.key")
    for authority in (first, second):
        (tmp_path / f"{id(authority)}.pem").write_text(authority.pem)

    def renew(authority: Authority) -> None:
        now = datetime.now(UTC)
        issued = authority.issue_server(("127.0.0.1",), key.public, now=now, days=9)
        (tmp_path / "web.crt").write_text(issued.pem)

    renew(first)
    room = services.room
    files = {"tls_cert": str(tmp_path / "web.crt"), "tls_key": str(tmp_path / "web.key")}
    room.config = dataclasses.replace(room.config, tls=Tls.OFF, **files)
    tls = ServerTls.of(room)
    assert tls is not None
    with serving(create_app(services), tls) as web:
        for authority in (first, second):
            with Web(web.base) as asking:
                asking.verify = str(tmp_path / f"{id(authority)}.pem")
                assert asking.get("/healthz").status_code == 200
            renew(second)
            tls.reload()
        (tmp_path / "web.crt").write_text("spoilt")
        tls.reload()
        with Web(web.base) as asking:
            asking.verify = str(tmp_path / f"{id(second)}.pem")
            assert asking.get("/healthz").status_code == 200


def renewal(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    return render(CertificateRequest(name, csr_of(key, name)))


def test_a_device_whose_certificate_ended_gets_the_next_for_its_key(
    http: Web, services: Services, board: Board, blob: str, clock: Clock
) -> None:
    clock.now += 100 * 24 * 3600
    answer = http.post("/api/v1/renew", data=renewal("pi-1", board.key))
    assert answer.status_code == 200
    found = parse(CertificateResponse, answer.content, device="pi-1")
    assert expiry_of(found.certificate).timestamp() == clock.now + 90 * 24 * 3600
    with services.room.store.begin() as tx:
        row = next(row for row in tx.ledger.audit() if row.what == "device.renew")
    assert (row.who, row.subject, row.address) == ("device:pi-1", "pi-1", "127.0.0.1")

    # an answer may be lost, but nobody gets them by the dozen
    assert http.post("/api/v1/renew", data=renewal("pi-1", board.key)).status_code == 409
    clock.now += 600
    assert http.post("/api/v1/renew", data=renewal("pi-1", board.key)).status_code == 200


def test_a_revoked_or_unknown_device_and_another_key_get_no_certificate(
    http: Web, services: Services, board: Board, clock: Clock
) -> None:
    clock.now += 100 * 24 * 3600
    said = set()
    for name, key in (("pi-1", new_key()), ("pi-9", board.key), ("pi-9", new_key())):
        answer = http.post("/api/v1/renew", data=renewal(name, key))
        assert answer.status_code == 403
        said.add(answer.json()["detail"])
    services.enrolment.revoke("pi-1", actor=ME)
    answer = http.post("/api/v1/renew", data=renewal("pi-1", board.key))
    assert answer.status_code == 403
    assert said == {answer.json()["detail"]}  # which does not tell who is here


def test_wrong_requests_for_certificates_are_held_back_and_users_are_not(
    http: Web, board: Board, clock: Clock
) -> None:
    clock.now += 100 * 24 * 3600
    wrong = [http.post("/api/v1/renew", data=renewal("pi-1", new_key())) for _ in range(11)]
    assert [answer.status_code for answer in wrong] == [403] * 10 + [429]
    assert http.post("/api/v1/renew", data=renewal("pi-1", board.key)).status_code == 429
    assert http.get("/api/v1/devices", headers=AUTH).status_code == 200
    clock.now += 6
    assert http.post("/api/v1/renew", data=renewal("pi-1", board.key)).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 300_000])
def test_a_request_for_a_certificate_that_is_none_is_refused(http: Web, body: bytes) -> None:
    assert http.post("/api/v1/renew", data=body).status_code == 422
