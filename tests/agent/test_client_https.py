"""The clients and `edge-agent predict` over https: whom they believe, and what they never say."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.adapters.lan_certificate import read_certificate
from edgefleet_agent.cli import main
from edgefleet_agent.client import AsyncClient, Client, Credentials
from edgefleet_contract.errors import OperatorError, TransientError, Unverified
from tests.agent.authority import Authority
from tests.agent.models import linear, linear_spec, pixels
from tests.agent.network import Network, on_network

WRONG = "sha256//" + "A" * 43 + "="


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("the clients' authority")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("device")
    (folder / "ca.pem").write_text(authority.pem)
    with on_network(folder, {"client_ca": str(folder / "ca.pem")}) as here:
        assert here.do(here.host.activate((linear_spec(folder),))) is None
        yield here


@pytest.fixture(scope="module")
def secret(here: Network) -> str:
    return here.token("client")


@pytest.fixture(scope="module")
def pin(here: Network) -> str:
    return read_certificate(here.lan.certificate_file).fingerprint


def asked(here: Network, credentials: Credentials, *, is_async: bool) -> np.ndarray:
    if not is_async:
        with Client(here.url, credentials=credentials) as client:
            return client.infer("digits", pixels(2))["y"]

    async def ask() -> np.ndarray:
        async with AsyncClient(here.url, credentials=credentials) as client:
            answers = await asyncio.gather(*(client.infer("digits", pixels(2)) for _ in range(8)))
            return answers[-1]["y"]

    return asyncio.run(ask())


both = pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])


@both
def test_a_token_and_the_key_or_the_certificate_of_the_agent(
    here: Network, secret: str, pin: str, is_async: bool
) -> None:
    for known in ({"fingerprint": pin}, {"ca": str(here.lan.certificate_file)}):
        found = asked(here, Credentials(token=secret, **known), is_async=is_async)
        assert np.array_equal(found, linear(pixels(2)))


@both
def test_a_certificate_instead_of_a_token(
    here: Network, authority: Authority, pin: str, tmp_path: Path, is_async: bool
) -> None:
    mine = str(authority.device(tmp_path, "laptop"))
    found = asked(here, Credentials(fingerprint=pin, certificate=mine), is_async=is_async)
    assert np.array_equal(found, linear(pixels(2)))


@both
def test_who_is_not_the_agent_hears_no_token(here: Network, secret: str, is_async: bool) -> None:
    before = here.refused()
    for known in ({"fingerprint": WRONG}, {}):
        with pytest.raises(Unverified) as refused:
            asked(here, Credentials(token=secret, **known), is_async=is_async)
        assert "edge-agent certificate" in refused.value.hint
    after = here.refused()
    assert {key: after[key] for key in after if key != "handshake"} == {
        key: before[key] for key in before if key != "handshake"
    }


@both
def test_what_a_client_without_a_right_is_told(here: Network, pin: str, is_async: bool) -> None:
    with pytest.raises(OperatorError, match=r"bring a token.*401"):
        asked(here, Credentials(fingerprint=pin), is_async=is_async)
    narrow = here.token(f"narrow-{is_async}".lower(), models=("other",))
    with pytest.raises(OperatorError, match=r"is not for model 'digits'.*403"):
        asked(here, Credentials(token=narrow, fingerprint=pin), is_async=is_async)


def test_a_token_is_not_sent_in_the_clear_beyond_this_machine() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(OperatorError, match="in the clear"):
            kind("192.0.2.1:8501", credentials=Credentials(token="x"))
        kind("127.0.0.1:8501", credentials=Credentials(token="x"))
        with pytest.raises(OperatorError, match="the token is none"):
            kind("https://192.0.2.1:8501", credentials=Credentials(token="x\r\ny: z"))
    assert "secret" not in repr(Credentials(token="secret"))


@pytest.mark.parametrize(
    "address", ["https://", "https://h", "https://h:1/x", "https://u@h:x", "h"]
)
def test_a_misspelt_address_is_refused(address: str) -> None:
    with pytest.raises(OperatorError, match="is not an address"):
        Client(address)


def test_a_server_that_speaks_no_tls_is_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        credentials = Credentials(fingerprint=WRONG)
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with Client(address, credentials=credentials) as client, pytest.raises(TransientError):
            client.is_ready()
        thread.join()


def test_the_command_line_asks_over_https(
    here: Network, secret: str, pin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", pixels(1))
    words = ["predict", "--address", here.url, "digits", str(tmp_path / "x.npy")]

    def run(*more: str, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
        code = main([*words, *more], {"HOME": str(tmp_path)} | (environ or {}))
        said = capsys.readouterr()
        return code, said.out, said.err

    good = {"predictions": linear(pixels(1)).tolist()}
    code, out, _ = run("--token", secret, "--fingerprint", pin)
    assert (code, json.loads(out)) == (0, good)
    known = ("--ca", str(here.lan.certificate_file))
    assert json.loads(run(*known, environ={"EDGE_AGENT_TOKEN": secret})[1]) == good
    assert run("--fingerprint", pin)[0] == 1
    code, _, err = run("--token", secret, "--fingerprint", WRONG)
    assert code == 3
    assert secret not in err
    assert run("--token", secret, "--ca", "none.pem")[0] == 1
