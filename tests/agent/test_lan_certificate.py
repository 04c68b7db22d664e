"""The certificate that the agent makes for its network port, and when it makes it anew."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from edgefleet_agent.adapters.lan_certificate import (
    addresses,
    ensure_certificate,
    host_names,
    read_certificate,
)
from edgefleet_agent.cli import main
from edgefleet_agent.serving.lan import LanConfig
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def config(folder: Path, *names: str) -> LanConfig:
    return LanConfig(listen=("0.0.0.0:8501",), names=names, folder=str(folder / "serving"))


def test_it_is_for_this_host_by_name_and_address_and_lasts_ten_years(tmp_path: Path) -> None:
    lan = config(tmp_path, "kitchen.example", "192.0.2.7")
    assert ensure_certificate(lan, NOW)
    shown = read_certificate(lan.certificate_file)
    assert {*host_names(), *addresses(), "kitchen.example", "192.0.2.7"} == set(shown.names)
    assert socket.gethostname().lower() in shown.names
    assert {"localhost", "127.0.0.1"} <= set(shown.names)
    assert shown.ends == NOW + timedelta(days=3650)
    for file in (lan.key_file, lan.certificate_file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_the_addresses_are_those_that_the_kernel_says() -> None:
    found = {
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6) and "%" not in entry.address
    }
    assert set(addresses()) >= {address for address in found if not address.startswith("169.254.")}


def test_it_stays_while_it_is_good(tmp_path: Path) -> None:
    lan = config(tmp_path)
    ensure_certificate(lan, NOW)
    before = lan.certificate_file.read_bytes()
    for now in (NOW, NOW + timedelta(days=3284), datetime(1970, 1, 1, tzinfo=UTC)):
        assert not ensure_certificate(lan, now)
    assert lan.certificate_file.read_bytes() == before


@pytest.mark.parametrize("why", ["near its end", "another name", "another key", "spoilt", "gone"])
def test_it_is_made_anew_with_the_same_key(tmp_path: Path, why: str) -> None:
    lan = config(tmp_path)
    ensure_certificate(lan, NOW)
    before, now = read_certificate(lan.certificate_file), NOW
    match why:
        case "near its end":
            now = NOW + timedelta(days=3286)
        case "another name":
            lan = config(tmp_path, "new.example")
        case "another key":
            lan.key_file.write_bytes(PrivateKey.generate_p256().to_pem())
        case "spoilt":
            lan.certificate_file.write_text("spoilt")
        case "gone":
            lan.certificate_file.unlink()
    assert ensure_certificate(lan, now)
    after = read_certificate(lan.certificate_file)
    assert after.ends == now + timedelta(days=3650)
    assert (after.fingerprint == before.fingerprint) == (why != "another key")


def test_a_board_whose_clock_is_not_set_makes_one_that_is_good_when_it_is(tmp_path: Path) -> None:
    lan = config(tmp_path)
    assert ensure_certificate(lan, datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
    assert not ensure_certificate(lan, NOW)
    assert read_certificate(lan.certificate_file).ends > NOW + timedelta(days=3000)


def test_one_that_is_given_is_not_touched(tmp_path: Path) -> None:
    lan = LanConfig(listen=("0.0.0.0:0",), certificate="a", key="b", folder=str(tmp_path / "x"))
    assert not ensure_certificate(lan, NOW)
    assert not (tmp_path / "x").exists()


def test_the_command_line_shows_the_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text('[serving.lan]\nlisten = ["0.0.0.0:8501"]\n')
    assert main(["certificate", "--state", str(tmp_path)]) == 1
    assert "the agent makes it when it starts" in capsys.readouterr().err
    ensure_certificate(config(tmp_path), NOW)
    assert main(["certificate", "--json", "--state", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fingerprint"].startswith("sha256//")
    assert found["file"] == str(tmp_path / "serving" / "lan.crt")
    assert main(["certificate", "--state", str(tmp_path)]) == 0
    assert found["fingerprint"] in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "serving").write_text("a file")
    with pytest.raises(OperatorError, match="cannot write"):
        ensure_certificate(config(tmp_path), NOW)
