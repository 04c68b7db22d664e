"""The configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_fleet.config import Config, ExternalBroker, load


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None, {}) == Config()


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, 'name = "plant"\nmqtt_port = 1234\n')
    found = load(file, {}, mqtt_port=4321, listen=None)
    assert (found.name, found.mqtt_port, found.listen) == ("plant", 4321, "127.0.0.1:8080")


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="'mqtt_prot'") as error:
        load(write(tmp_path, "mqtt_prot = 1\n"), {})
    assert "mqtt_port" in error.value.hint


@pytest.mark.parametrize(
    "text",
    [
        'name = "With Spaces"',
        'listen = "8080"',
        "mqtt_port = 70000",
        "order_days = 15",
        "telemetry_keep = 0",
        'public_url = "ftp://x"',
        "name = 5",
        "name = ",
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(OperatorError):
        load(write(tmp_path, text), {})


def test_a_missing_file_is_named() -> None:
    with pytest.raises(OperatorError, match=r"nowhere\.toml"):
        load(Path("nowhere.toml"), {})


def test_the_data_base_address_may_come_from_the_environment() -> None:
    assert load(None, {"FLEET_DATABASE_URL": "postgresql://x"}).database_url == "postgresql://x"


def test_a_broker_of_ones_own_is_configured_by_a_table(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '[broker]\nurl = "mqtts://mq.example:1884"\ncafile = "c"\ncert = "d"\nkey = "e"\n',
    )
    found = load(file, {})
    assert found.broker == ExternalBroker("mqtts://mq.example:1884", "c", "d", "e")
    assert found.broker.address == ("mq.example", 1884)
    assert found.broker_host() == "mq.example"


@pytest.mark.parametrize(
    ("flags", "url", "host"),
    [
        ({}, "http://127.0.0.1:80", "127.0.0.1"),
        (
            {"listen": "0.0.0.0:8080", "public_host": "f.example"},
            "http://f.example:80",
            "f.example",
        ),
        ({"public_url": "https://f.example/"}, "https://f.example", "f.example"),
        ({"listen": "[::1]:8080"}, "http://[::1]:80", "::1"),
        (
            {"listen": "0.0.0.0:8080", "public_host": "f.example", "tls": "own"},
            "https://f.example:80",
            "f.example",
        ),
        ({"tls_cert": "c", "tls_key": "k"}, "https://127.0.0.1:80", "127.0.0.1"),
    ],
)
def test_devices_are_told_an_address_that_they_can_reach(
    flags: dict[str, str], url: str, host: str
) -> None:
    found = load(None, {}, **flags)
    assert found.base_url(80) == url
    assert found.broker_host() == host


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"tls": "on"}, "tls"),
        ({"tls_cert": "c"}, "come together"),
        ({"tls": "own", "tls_cert": "c", "tls_key": "k"}, "leave one out"),
        ({"tls": "own", "public_url": "http://f.example"}, "not https"),
    ],
)
def test_tls_that_contradicts_itself_is_refused(flags: dict[str, str], said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        load(None, {}, **flags)


@pytest.mark.parametrize(
    ("flags", "is_exposed"),
    [
        ({}, False),
        ({"listen": "localhost:1"}, False),
        ({"listen": "[::1]:1"}, False),
        ({"listen": "127.0.0.9:1"}, False),
        ({"listen": "0.0.0.0:1"}, True),
        ({"listen": "[::]:1"}, True),
        ({"listen": "192.0.2.1:1"}, True),
        ({"listen": "f.example:1"}, True),
        ({"listen": "0.0.0.0:1", "tls": "own"}, False),
    ],
)
def test_a_port_that_others_can_reach_in_the_clear_is_known(
    flags: dict[str, str], is_exposed: bool
) -> None:
    assert load(None, {}, **flags).is_exposed is is_exposed
