"""A device and its control room over https: who is believed, what a man in the middle learns."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509

from edgefleet_agent import config as configs
from edgefleet_agent import enrol as enrolment
from edgefleet_agent import identity as identities
from edgefleet_agent.adapters.http_session import FOREIGN, HttpSession
from edgefleet_agent.adapters.tls import UNVERIFIED, Tls, read_authorities
from edgefleet_contract.bundle import sha256
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.errors import OperatorError, TransientError, Unverified
from edgefleet_contract.trust import Claim
from tests.agent.authority import Authority
from tests.agent.repository import Repository

SECRET = "s" * 43
BOARD = Capabilities("x86-64", "x86_64", "a board", "Debian 12", "3.11", 2, 2**30, {})


@dataclass
class Room:
    """A control room of another make: TUF documents, enrolment; and all that it was told."""

    authority: Authority = field(default_factory=Authority)
    repository: Repository = field(default_factory=Repository)
    told: list[bytes] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    url: str = ""
    answer: bytes = b""

    def __post_init__(self) -> None:
        self.repository.policy = replace(self.repository.policy, ca=self.authority.pem)
        self.repository.publish()

    def claim(self) -> Claim:
        return Claim("demo", SECRET, sha256(self.repository.root))

    def get(self, path: str) -> bytes | None:
        name = path.removeprefix("/tuf/")
        return self.repository.documents.get("1.root.json" if name == "root.json" else name)

    def post(self, body: bytes) -> bytes:
        asked = json.loads(body)
        csr = x509.load_pem_x509_csr(asked["csr"].encode())
        return (
            self.answer
            or json.dumps(
                {
                    "schema": "edgefleet.enrolled/1",
                    "device": asked["device"],
                    "certificate": self.authority.sign(csr),
                    "root": self.repository.root.decode(),
                    "metadata": f"{self.url}/tuf",
                    "mqtt_host": "127.0.0.1",
                    "mqtt_port": 8883,
                }
            ).encode()
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._reply(self.server.room.get(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.room.told.append(body)
        self._reply(self.server.room.post(body))

    def _reply(self, body: bytes | None) -> None:
        room = self.server.room
        room.told.append(f"{self.requestline}\n{self.headers}".encode())
        if isinstance(self.connection, ssl.SSLSocket):
            der = self.connection.getpeercert(binary_form=True)
            found = x509.load_der_x509_certificate(der) if der else None
            room.peers.append(found.subject.rfc4514_string() if found is not None else "")
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, room: Room, certificate: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.room = room
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
            self.context.verify_mode = ssl.CERT_OPTIONAL
            self.context.load_verify_locations(cadata=room.authority.pem)

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        if self.context is None:
            super().finish_request(request, client_address)  # type: ignore[arg-type]
            return
        with contextlib.suppress(OSError), self.context.wrap_socket(request, True) as secured:
            super().finish_request(secured, client_address)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is what some of these tests are about


@contextlib.contextmanager
def serving(room: Room, certificate: Path | None) -> Iterator[str]:
    """The URL of a server that shows this certificate (and key), or none."""
    with Server(room, certificate) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        scheme = "https" if certificate else "http"
        room.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        try:
            yield room.url
        finally:
            server.shutdown()
            thread.join()


def enrol(state: Path, room: Room, *, url: str = "", authorities: str = "") -> identities.Enrolment:
    return enrolment.enrol(
        state,
        url=url or room.url,
        claim=room.claim(),
        device="pi-1",
        capabilities=BOARD,
        authorities=authorities,
    )


@pytest.mark.parametrize("is_tls", [True, False])
def test_a_device_enrols_with_whoever_the_metadata_of_its_claim_vouch_for(
    tmp_path: Path, is_tls: bool
) -> None:
    room = Room()
    certificate = room.authority.server(tmp_path, "127.0.0.1") if is_tls else None
    with serving(room, certificate) as url:
        done = enrol(tmp_path / "pi-1", room)
    assert (done.fleet, done.device, done.url) == ("demo", "pi-1", url)
    assert sum(SECRET.encode() in told for told in room.told) == 1


@pytest.mark.parametrize("shown", ["another authority", "another host", "a device"])
def test_a_man_in_the_middle_who_relays_everything_learns_no_claim(
    tmp_path: Path, shown: str
) -> None:
    """He has every public document, and any certificate but the control room's."""
    room = Room()
    certificate = {
        "another authority": lambda: Authority("an authority").server(tmp_path, "127.0.0.1"),
        "another host": lambda: room.authority.server(tmp_path, "fleet.example"),
        "a device": lambda: room.authority.device(tmp_path, "pi-9"),
    }[shown]()
    with serving(room, certificate), pytest.raises(Unverified, match="not the fleet's") as refused:
        enrol(tmp_path / "pi-1", room)
    assert "nothing was told to it" in refused.value.hint
    assert any(b"GET /tuf/timestamp.json" in told for told in room.told)  # he was talked to
    assert not any(b"POST" in told or SECRET.encode() in told for told in room.told)
    assert not identities.is_enrolled(tmp_path / "pi-1")


@pytest.mark.parametrize("is_tls", [True, False])
def test_another_fleet_learns_no_claim(tmp_path: Path, is_tls: bool) -> None:
    """Whoever cannot show the root that the claim names is told nothing, over plain HTTP too."""
    mine, other = Room(), Room()
    certificate = other.authority.server(tmp_path, "127.0.0.1") if is_tls else None
    with serving(other, certificate), pytest.raises(Unverified, match="root"):
        enrol(tmp_path / "pi-1", mine, url=other.url)
    assert not any(b"POST" in told or SECRET.encode() in told for told in other.told)


def test_a_control_room_behind_a_certificate_from_elsewhere_is_named_by_its_authority(
    tmp_path: Path,
) -> None:
    room, elsewhere = Room(), Authority("elsewhere")
    (tmp_path / "elsewhere.pem").write_text(f"# für uns\n{elsewhere.pem}")
    (tmp_path / "agent.toml").write_text(f'[http]\nca_file = "{tmp_path / "elsewhere.pem"}"\n')
    named = read_authorities(configs.load(None, tmp_path).http.ca_file)
    with serving(room, elsewhere.server(tmp_path, "127.0.0.1")):
        with pytest.raises(Unverified):
            enrol(tmp_path / "pi-1", room)
        enrol(tmp_path / "pi-1", room, authorities=named)


def test_an_authority_that_is_none_is_named(tmp_path: Path) -> None:
    assert read_authorities("") == ""
    with pytest.raises(OperatorError, match="cannot read"):
        read_authorities(str(tmp_path / "no.pem"))
    for text in ("", "nonsense"):
        (tmp_path / "no.pem").write_text(text)
        with pytest.raises(OperatorError, match=r"no\.pem") as refused:
            read_authorities(str(tmp_path / "no.pem"))
        assert "ca_file" in refused.value.hint


def test_an_answer_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    room = Room(answer=b" " * 10_000_000)
    with serving(room, None), pytest.raises(TransientError, match="more than"):
        enrol(tmp_path / "pi-1", room)


def get(session: HttpSession, url: str) -> int:
    with session.get(url, {}) as answer:
        list(answer.pieces(1000))
        return answer.status


def session(tls: Tls | None, *, patience_s: float = 5) -> HttpSession:
    return HttpSession(timeout=(5, 5), patience_s=patience_s, tls=tls)


def test_a_renewed_certificate_is_shown_from_the_next_connection_on(tmp_path: Path) -> None:
    room = Room()
    mine = tmp_path / "mine.pem"
    mine.write_bytes(room.authority.device(tmp_path, "before").read_bytes())
    tls = Tls(room.authority.pem, mine, mine)
    named, anonymous = session(tls), session(tls.anonymous)
    for name in ("before", "after"):
        mine.write_bytes(room.authority.device(tmp_path, name).read_bytes())
        with serving(room, room.authority.server(tmp_path, "127.0.0.1")) as url:
            assert get(named, f"{url}/tuf/timestamp.json") == 200
            assert get(anonymous, f"{url}/tuf/timestamp.json") == 200
    assert room.peers == ["CN=before", "", "CN=after", ""]


def test_a_server_is_believed_by_the_authority_that_is_named_and_by_no_other(
    tmp_path: Path,
) -> None:
    room, other = Room(), Authority("other")
    with serving(room, room.authority.server(tmp_path, "127.0.0.1")) as url:
        for tls in (Tls(room.authority.pem), Tls(other.pem + room.authority.pem), UNVERIFIED):
            assert get(session(tls), f"{url}/tuf/timestamp.json") == 200
        for wrong in (Tls(other.pem), Tls(""), Tls("nonsense"), None):  # None: the world's
            with pytest.raises(FOREIGN):
                get(session(wrong), f"{url}/tuf/timestamp.json")
        with pytest.raises(FOREIGN):  # the name in the certificate is not this one
            get(session(Tls(room.authority.pem)), url.replace("127.0.0.1", "localhost"))


def test_an_identity_without_an_authority_is_not_used(tmp_path: Path) -> None:
    room = Room()
    with serving(room, room.authority.server(tmp_path, "127.0.0.1")):
        enrol(tmp_path, room)
    identity = identities.load(tmp_path)
    Tls.of(identity)
    identity.authority.write_text("")  # as a power cut may leave a file
    with pytest.raises(OperatorError, match="certificate cannot be used"):
        Tls.of(identity)


@pytest.mark.timeout(30)
def test_a_source_that_drips_over_tls_is_given_up(tmp_path: Path) -> None:
    authority, stop = Authority(), threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server(tmp_path, "127.0.0.1"))

    def drip(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            raw, _ = listener.accept()
            with context.wrap_socket(raw, True) as secured:
                while not stop.wait(0.05):
                    secured.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(FOREIGN):
            get(session(Tls(authority.pem), patience_s=0.3), url)
        stop.set()
        thread.join()
