"""Addresses: what is bound, what is refused, and what the operator is told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.listener import bind, release, spell
from edgefleet_contract.errors import OperatorError


def refusal(address: str, **options: bool) -> OperatorError:
    with pytest.raises(OperatorError) as caught:
        bind(address, **options)
    assert caught.value.hint
    return caught.value


def test_port_0_takes_a_free_port_and_says_which() -> None:
    sock = bind("127.0.0.1:0")
    assert spell(sock) == f"127.0.0.1:{sock.getsockname()[1]}"
    release(sock)


def test_a_taken_port_is_refused_with_a_hint() -> None:
    sock = bind("127.0.0.1:0")
    assert "Address already in use" in refusal(spell(sock)).message
    release(sock)


@pytest.mark.parametrize("address", ["", "8501", "127.0.0.1:", "127.0.0.1:http", "localhost:70000"])
def test_a_misspelt_address_is_refused(address: str) -> None:
    assert "neither unix:/path nor host:port" in refusal(address).message


def test_the_network_is_opened_only_by_saying_so() -> None:
    assert "nobody is asked who they are" in refusal("0.0.0.0:0").message
    release(bind("0.0.0.0:0", open_to_network=True))


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    bind(address).close()  # what a power cut leaves: a file that nobody listens on
    sock = bind(address)
    assert "already" in refusal(address).message
    release(sock)
    assert not (tmp_path / "s").exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "no socket" in refusal(f"unix:{path}").message
    assert path.read_text() == "data"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "create the folder" in refusal(f"unix:{tmp_path}/no/such/s").hint


def test_an_accepted_socket_is_0660(tmp_path: Path) -> None:
    sock = bind(f"unix:{tmp_path}/s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
    release(sock)


@pytest.mark.parametrize(
    "change", [{"queue": 0}, {"deadline_s": -1.0}, {"listen": ()}, {"threads": 0}]
)
def test_a_configuration_that_cannot_work_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(OperatorError, match=f"serving.{next(iter(change))}"):
        ServingConfig(**change)  # type: ignore[arg-type]  # wrong on purpose
