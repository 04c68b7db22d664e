"""The network's door: real handshakes, real tokens, real processes behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import numpy as np
import psutil
import pytest

from edgefleet_agent.serving.lan import LanConfig
from edgefleet_contract.errors import OperatorError
from tests.agent.authority import Authority
from tests.agent.hosting import Load, until
from tests.agent.models import linear, linear_spec, pixels
from tests.agent.network import Network, bearer, on_network, read_all

ROWS = {"instances": pixels(1).tolist()}
GOOD = {"predictions": linear(pixels(1)).tolist()}
DIGITS = "/v1/models/digits:predict"
OTHER = "/v1/models/other:predict"
BODY = json.dumps(ROWS).encode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("the clients' authority")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Network]:
    """A port that takes tokens, and the certificates of two clients."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "ca.pem").write_text(authority.pem)
    lan = {"client_ca": str(folder / "ca.pem"), "clients": ("cam-1",)}
    with on_network(folder, lan, max_body_bytes=2**20) as here:
        specs = (linear_spec(folder), linear_spec(folder, slot="other"))
        assert here.do(here.host.activate(specs)) is None
        yield here


def said(answer: object) -> str:
    return answer.json()["error"]


def test_who_brings_no_token_is_told_how_to(here: Network) -> None:
    answer = here.predict("digits", ROWS)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="edgefleet"'
    assert said(answer).startswith("bring a token")


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/v1/models", "/readyz", "/v2", "/"])
def test_no_page_but_the_two_that_say_that_it_runs_is_open(here: Network, path: str) -> None:
    assert here.ask("GET", path).status == 401
    for page in ("/healthz", "/v2/health/live"):
        assert here.ask("GET", page).status == 200
    assert here.ask("POST", "/healthz", b"{}").status == 405


def test_a_token_opens_until_it_is_revoked(here: Network) -> None:
    secret = here.token("phone")
    connection = here.connect()
    answer = here.ask("POST", DIGITS, ROWS, bearer(secret), connection)
    assert (answer.status, answer.json()) == (200, GOOD)
    here.revoke("phone")
    answer = here.ask("POST", DIGITS, ROWS, bearer(secret), connection)
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    connection.close()


def test_a_token_opens_until_it_ends(here: Network) -> None:
    secret = here.token("guest", lasts_s=1)
    until(lambda: here.ask("GET", "/v2", headers=bearer(secret)).status == 401, timeout=5)
    assert "has ended" in said(here.ask("GET", "/v2", headers=bearer(secret)))


def test_a_token_of_one_model_opens_no_other_and_shows_none(here: Network) -> None:
    mine = bearer(here.token("narrow", models=("digits",)))
    assert here.ask("POST", DIGITS, ROWS, mine).status == 200
    for path in (OTHER, "/v1/models/nobody:predict", "/v2/models/other/infer"):
        answer = here.ask("POST", path, ROWS, mine)
        assert answer.status == 403
        assert "token narrow is not for model" in said(answer)
    for path in ("/v1/models/other", "/v2/models/other", "/v2/models/other/ready"):
        assert here.ask("GET", path, headers=mine).status == 403
    index = here.ask("POST", "/v2/repository/index", {}, mine).json()
    assert [model["name"] for model in index] == ["digits"]
    listed = here.ask("GET", "/v1/models", headers=mine).json()["models"]
    assert [model["name"] for model in listed] == ["digits"]
    metrics = here.ask("GET", "/metrics", headers=mine).body
    assert b'model="digits"' in metrics
    assert b"other" not in metrics
    assert b"network" not in metrics


def test_a_certificate_of_a_client_on_the_list_opens(
    here: Network, authority: Authority, tmp_path: Path
) -> None:
    mine = Network(here.host, here.loop, here.lan)
    mine.context = here.trusting(authority.device(tmp_path, "cam-1"))
    assert mine.predict("digits", ROWS).json() == GOOD
    mine.context = here.trusting(authority.device(tmp_path, "cam-2"))
    answer = mine.predict("digits", ROWS)
    assert answer.status == 403
    assert "'cam-2' is not on the list" in said(answer)
    assert mine.ask("POST", DIGITS, ROWS, bearer(here.token("cam-2"))).status == 200


def test_a_certificate_of_another_authority_ends_the_handshake(
    here: Network, tmp_path: Path
) -> None:
    mine = Network(here.host, here.loop, here.lan)
    mine.headers = bearer(here.token("right"))
    mine.context = here.trusting(Authority("a stranger").device(tmp_path, "cam-1"))
    before = here.refused().get("handshake", 0)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        mine.predict("digits", ROWS)
    assert here.refused()["handshake"] == before + 1


def test_plain_http_is_told_to_speak_tls(here: Network) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", here.port, timeout=30)
    plain.request("GET", "/healthz", headers=bearer("x"))
    answer = plain.getresponse()
    assert answer.status == 400
    assert json.loads(answer.read()) == {"error": "this port speaks TLS: use https://"}
    plain.close()


def test_an_old_tls_and_ciphers_without_forward_secrecy_are_refused(here: Network) -> None:
    old = here.trusting()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    weak = here.trusting()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES256-GCM-SHA384")
    for context in (old, weak):
        with (
            socket.create_connection(("127.0.0.1", here.port), timeout=30) as raw,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(raw, server_hostname="127.0.0.1")
    good = here.trusting()
    good.maximum_version = ssl.TLSVersion.TLSv1_2
    mine = Network(here.host, here.loop, here.lan, context=good)
    assert mine.ask("GET", "/healthz").status == 200


def test_what_is_no_token_is_401(tmp_path: Path) -> None:
    """A host of its own: wrong ones are counted against an address, and ten are the end."""
    wrong = (
        "",
        "Bearer",
        "Bearer ",
        "Basic dTpw",
        "Bearer a b",
        "bearer\tx",
        "Bearer " + "x" * 300,
    )
    with on_network(tmp_path) as here:
        secret = here.token("x")
        connection = here.connect()
        for value in wrong:
            headers = {"Authorization": value}
            assert here.ask("GET", "/v2", None, headers, connection).status == 401, value
        connection.putrequest("GET", "/v2")
        connection.putheader("Authorization", f"Bearer {secret}")
        connection.putheader("Authorization", f"Bearer {secret}")
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:9]) == (401, b'{"error":')
        right = {"Authorization": f"bEaReR  {secret}"}
        assert here.ask("GET", "/v2", None, right, connection).status == 200
        connection.close()


def test_guesses_are_held_back_and_others_go_on(tmp_path: Path) -> None:
    with on_network(tmp_path) as here:
        secret = here.token("right")
        connection = here.connect()
        for _ in range(10):
            assert here.ask("GET", "/v2", None, bearer("guess"), connection).status == 401
        answer = here.ask("GET", "/v2", None, bearer(secret), connection)
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 6
        assert here.ask("GET", "/healthz", connection=connection).status == 200
        connection.close()
        assert here.refused() == {"wrong": 10, "throttled": 1}
        local = http.client.HTTPConnection("127.0.0.1", here.local_port)
        local.request("GET", "/v2")
        assert local.getresponse().status == 200
        local.close()


def test_who_asked_is_counted_by_name_and_no_secret_is_shown(here: Network) -> None:
    secret = here.token("counted")
    for _ in range(3):
        here.ask("POST", DIGITS, ROWS, bearer(secret))
    here.ask("GET", "/no/page", headers=bearer(secret))
    counts = here.samples("edgefleet_network_requests_total")
    assert counts['{client="token counted",code="200"}'] == 3
    assert counts['{client="token counted",code="404"}'] == 1
    metrics = here.ask("GET", "/metrics", headers=bearer(secret)).body.decode()
    assert "token counted" in metrics
    assert secret not in metrics
    assert secret not in here.lan.tokens_file.read_text()


def test_swaps_under_load_over_tls_close_no_connection(tmp_path: Path) -> None:
    with on_network(tmp_path) as here:
        here.headers = bearer(here.token("load"))
        assert here.do(here.host.activate((linear_spec(tmp_path, 1),))) is None
        zero = json.dumps({"instances": np.zeros((1, 64)).tolist()}).encode()
        with Load(here, DIGITS, zero) as load:
            for version in range(2, 7):
                load.more(120)
                assert here.do(here.host.activate((linear_spec(tmp_path, version),))) is None
            load.more(120)
        assert load.failures == []
        assert all(answer == 1 + (int(v) + 1) % 2 for v, answer in load.answers)
        assert {v for v, _ in load.answers} == {str(v) for v in range(1, 7)}


def test_a_front_that_is_killed_comes_back_on_the_same_port_with_the_same_key(
    tmp_path: Path,
) -> None:
    with on_network(tmp_path) as here:
        here.headers = bearer(here.token("phone"))
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        before = here.host.front_pid
        os.kill(before, signal.SIGKILL)
        until(lambda: here.host.front_pid not in (None, before))
        assert here.predict("digits", ROWS).json() == GOOD


def test_half_a_request_has_its_time_and_then_408(tmp_path: Path) -> None:
    with on_network(tmp_path, request_s=0.3) as here:
        secret = here.token("slow").encode()
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % (
            DIGITS.encode(),
            secret,
        )
        for sent in (b"", b"POST /v1", head, head + b"Content-Length: 9\r\n\r\n{"):
            with here.dial() as sock:
                sock.sendall(sent)
                got = read_all(sock)
            assert got.startswith(b"HTTP/1.1 408 "), sent
            assert b"within 0.3 s" in got
        assert here.ask("GET", "/healthz").status == 200


def test_a_body_that_drips_behind_a_refusal_holds_no_connection(tmp_path: Path) -> None:
    with on_network(tmp_path, request_s=0.5) as here, here.dial() as sock:
        sock.sendall(b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 401 ")
        sock.settimeout(0.05)
        assert is_ended(sock)


def is_ended(sock: ssl.SSLSocket) -> bool:
    """Whether the other side ends a connection on which a byte is sent now and then."""
    for _ in range(200):
        try:
            sock.sendall(b"x")
            if sock.recv(65536) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_answers_that_nobody_reads_hold_no_connection(tmp_path: Path) -> None:
    with on_network(tmp_path, request_s=1.0) as here, here.dial() as sock:
        sock.settimeout(0.5)
        with contextlib.suppress(OSError):  # it fills up, or is ended already
            while True:
                sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        front = psutil.Process(here.host.front_pid)

        def is_over() -> bool:
            open_ones = [c for c in front.net_connections() if c.laddr.port == here.port]
            return all(c.status == psutil.CONN_LISTEN for c in open_ones)

        until(is_over, timeout=20)


def test_a_head_without_end_is_refused(here: Network) -> None:
    with here.dial() as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000)
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


def test_noise_before_and_behind_the_handshake_harms_nobody(tmp_path: Path) -> None:
    random = Random(7)
    with on_network(tmp_path, request_s=2.0) as here:
        front = here.host.front_pid
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        request = b"POST /v2/models/x/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"
        for n in range(60):
            start = random.choice((b"", hello, request))[: random.randrange(80)]
            noise = start + random.randbytes(random.randrange(1, 400))
            with here.dial(secured=n % 2 == 1) as sock, contextlib.suppress(OSError):
                sock.settimeout(0.02)
                sock.sendall(noise)
                sock.recv(65536)
        assert here.ask("GET", "/healthz").status == 200
        assert here.host.front_pid == front
        assert here.host._swaps.front.restarts == 0


def test_idle_strangers_leave_room_and_are_bounded(tmp_path: Path) -> None:
    """Both sides of the handshake: who connects and says nothing, and who does it over TLS."""
    with on_network(tmp_path, {"max_connections": 8}, request_s=1.0) as here, ExitStack() as held:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        front = psutil.Process(here.host.front_pid)
        files = front.num_fds()
        for _ in range(30):
            held.enter_context(here.dial(secured=False))
        until(lambda: here.refused().get("full", 0) >= 22)
        assert front.num_fds() <= files + 10
        local = http.client.HTTPConnection("127.0.0.1", here.local_port)
        local.request("POST", DIGITS, BODY)
        assert local.getresponse().status == 200
        local.close()
        held.close()
        here.headers = bearer(here.token("late"))
        until(lambda: front.num_fds() <= files + 1)
        for _ in range(4):
            held.enter_context(here.dial())
        answer = here.predict("digits", ROWS)  # the fifth of this address, of 8 for all
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        until(lambda: here.predict("digits", ROWS).status == 200, timeout=10)  # they are given up


def test_without_tokens_only_a_certificate_opens_and_nothing_is_said_without_one(
    tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "ca.pem").write_text(authority.pem)
    lan = {"tokens": False, "client_ca": str(tmp_path / "ca.pem")}
    with on_network(tmp_path, lan) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        here.headers = bearer(here.token("x"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            here.ask("GET", "/healthz")
        here.context = here.trusting(authority.device(tmp_path, "anybody"))
        assert here.predict("digits", ROWS).json() == GOOD


def test_a_certificate_that_is_replaced_is_shown_from_the_next_connection_on(
    tmp_path: Path,
) -> None:
    old, new = Authority("old"), Authority("new")
    file = tmp_path / "server.pem"
    shutil.copy(old.server(tmp_path, "127.0.0.1"), file)
    with on_network(tmp_path, {"certificate": str(file), "key": str(file)}) as here:
        here.context = ssl.create_default_context(cadata=old.pem)
        kept = here.connect()
        assert here.ask("GET", "/healthz", connection=kept).status == 200
        file.write_text("half a file")  # is not used
        new.server(tmp_path, "127.0.0.1").replace(file)
        here.context = ssl.create_default_context(cadata=new.pem)

        def is_new() -> bool:
            try:
                return here.ask("GET", "/healthz").status == 200
            except ssl.SSLCertVerificationError:
                return False

        until(is_new, timeout=10)
        assert here.ask("GET", "/healthz", connection=kept).status == 200
        kept.close()


def test_a_worker_is_told_of_no_key_and_no_token(tmp_path: Path) -> None:
    with on_network(tmp_path) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        for pid in (here.host.worker_pids["digits"], here.host.zygote_pid):
            process = psutil.Process(pid)
            told = " ".join([*process.cmdline(), *process.environ().values()])
            assert "serving" not in told.replace("edgefleet_agent.serving", "")
            assert not [file for file in process.open_files() if "serving" in file.path]
            assert here.port not in {c.laddr.port for c in process.net_connections()}
        assert here.lan.key_file.stat().st_mode & 0o777 == 0o600
        assert here.lan.key_file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_knows_the_agent_by_its_certificate_or_its_key(here: Network) -> None:
    from edgefleet_agent.adapters.lan_certificate import read_certificate

    secret, file = here.token("curl"), here.lan.certificate_file
    pin = read_certificate(file).fingerprint

    def curl(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["curl", "-sS", "-H", f"Authorization: Bearer {secret}", *words, here.url + "/v2"],
            capture_output=True,
            check=False,
        )

    for known_by in (("--cacert", str(file)), ("-k", "--pinnedpubkey", pin)):
        assert json.loads(curl(*known_by).stdout)["name"] == "edgefleet"
    assert curl().returncode == 60
    assert curl("-k", "--pinnedpubkey", "sha256//" + "A" * 43 + "=").returncode == 90


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"listen": ()}, "listen"),
        ({"listen": ("unix:x",)}, "listen"),
        ({"tokens": False}, "lets nobody in"),
        ({"clients": ("a",)}, "no client_ca"),
        ({"certificate": "x"}, "one of certificate and key"),
        ({"certificate": "x", "key": "y", "names": ("z",)}, "has its own"),
        ({"max_connections": 1}, "max_connections"),
    ],
)
def test_a_table_that_is_open_or_makes_no_sense_is_refused(
    change: dict[str, object], says: str
) -> None:
    with pytest.raises(OperatorError) as refused:
        LanConfig(**{"listen": ("0.0.0.0:8501",), **change})
    assert says in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("lan", "says"),
    [
        ({"client_ca": "none.pem"}, "is no certificate authority"),
        ({"certificate": "none.pem", "key": "none.pem"}, "cannot use the certificate"),
        ({"names": ("not a näme",)}, "neither a host name"),
    ],
)
def test_what_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, lan: dict[str, object], says: str
) -> None:
    with pytest.raises(OperatorError, match=says), on_network(tmp_path, lan):
        pass
