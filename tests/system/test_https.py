"""A site over TLS: real processes, real certificates, and those that ended."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from cryptography import x509

from edgefleet_agent import identity as identities
from edgefleet_agent.adapters.mqtt_link import MqttLink
from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.config import MqttConfig
from edgefleet_agent.renewal import Renewal
from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet.authority import Authority
from tests.agent.authority import Authority as Stranger
from tests.agent.bundles import make_bundle
from tests.system.site import BIN, Site, free_port, open_site, require_mosquitto

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


def end_certificate(site: Site, state: Path) -> Path:
    """Put a certificate that ended a day ago in the place of a device's; its path."""
    keys, path = site.data / "keys", state / "identity" / "device.crt"
    authority = Authority.load((keys / "ca.pem").read_bytes(), (keys / "ca.key").read_bytes())
    public = PrivateKey.load(path.with_name("device.key")).public
    long_ago = datetime.now(UTC) - timedelta(days=2)
    path.write_text(authority.issue_client(state.name, public, now=long_ago, days=1).pem)
    return path


def age_the_known_certificates(database: Path) -> None:
    import sqlite3

    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE certificate SET issued_at = issued_at - 5000000")
    connection.close()


def test_a_device_is_served_over_tls_until_it_is_revoked(site: Site) -> None:
    state = site.enrol("pi-1")
    site.start_agent("pi-1")
    site.push(make_bundle(site.root / "bundles", 1, key=site.publisher), "--to", "id=pi-1")
    site.wait("version 1", lambda: site.version("pi-1") == 1)
    folder = state / "identity"
    device = {
        "verify": str(site.ca),
        "cert": (str(folder / "device.crt"), str(folder / "device.key")),
        "timeout": 10,
    }
    url = f"{site.url}/blobs/{site.get('/bundles')['bundles'][0]['digest']}"
    assert requests.get(url, verify=str(site.ca), timeout=10).status_code == 401
    with requests.Session() as kept:
        assert kept.get(url, **device).status_code == 200
        site.fleet("devices", "revoke", "pi-1")
        assert kept.get(url, **device).status_code == 403
    assert site.ask("pi-1")[0] == 200  # what it runs, it runs


def test_a_device_that_was_off_for_longer_than_its_certificate_lived_comes_back(
    site: Site,
) -> None:
    state = site.enrol("pi-2")
    path = end_certificate(site, state)
    age_the_known_certificates(site.data / "fleet.db")
    site.start_agent("pi-2")
    site.wait("the new certificate", lambda: "renewed after its end" in site.log("pi-2"))
    site.wait("the device", lambda: site.get("/devices/pi-2")["online"])
    renewed = x509.load_pem_x509_certificate(path.read_bytes())
    assert renewed.not_valid_after_utc - datetime.now(UTC) > timedelta(days=80)
    rows = [row for row in site.get("/audit")["audit"] if row["what"] == "device.renew"]
    assert [(row["who"], row["subject"]) for row in rows] == [("device:pi-2", "pi-2")]
    site.push(make_bundle(site.root / "bundles", 2, key=site.publisher), "--to", "id=pi-2")
    site.wait("version 2", lambda: site.version("pi-2") == 2)
    assert site.stop("pi-2") == 0


# paho lets go of a pair of sockets unclosed whenever its loop is started again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_broker_tells_a_device_that_its_certificate_ended(site: Site) -> None:
    """Its own clock may be behind: it hears it in the handshake, and asks for the next then."""
    state = site.enrol("pi-3")
    end_certificate(site, state)
    age_the_known_certificates(site.data / "fleet.db")
    identity, told, connected = identities.load(state), threading.Event(), threading.Event()

    def nothing(*_: object) -> None:
        pass

    link = MqttLink(
        identity,
        MqttConfig(),
        boot_id="boot",
        on_order=nothing,
        on_trust=nothing,
        on_connected=connected.set,
        on_certificate=nothing,
        on_block=nothing,
        on_expired=told.set,
    )
    days_behind = Renewal(
        identity, link=link, tls=Tls.of(identity), clock=lambda: time.time() - 3 * 86400
    )
    link.start()
    try:
        assert told.wait(20)
        assert days_behind.revive()
        assert not connected.is_set()
        assert days_behind.revive(is_refused=True)
        assert connected.wait(20)
    finally:
        link.stop()


def test_the_command_line_says_its_token_to_nobody_else(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_text(Stranger("other").pem)
    token = (site.data / "operator.token").read_text().strip()

    def fleet(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "fleet", *command],
            env={**os.environ, "FLEET_URL": site.url, "FLEET_TOKEN": token, **environ},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    listing = ("devices", "list", "--json")
    assert fleet(*listing, "--data", site.data).returncode == 0
    assert fleet("--ca", site.ca, *listing).returncode == 0
    assert fleet(*listing, FLEET_CA=str(site.ca)).returncode == 0
    for wrong in (
        fleet(*listing),  # the system's authorities
        fleet("--ca", tmp_path / "other.pem", *listing, "--data", site.data),
    ):
        assert wrong.returncode == 3, wrong.stderr
        assert "not known to be the control room" in wrong.stderr
        assert "--ca FILE" in wrong.stderr
    plain = fleet(*listing, FLEET_URL=site.url.replace("https:", "http:"))
    assert (plain.returncode, "https://" in plain.stderr) == (4, True)
    missing = fleet("--ca", tmp_path / "none.pem", *listing)
    assert (missing.returncode, "none.pem" in missing.stderr) == (1, True)


def test_enrolment_over_plain_http_at_the_tls_port_fails_cleanly(
    site: Site, tmp_path: Path
) -> None:
    claim = site.fleet("devices", "claim")
    url = site.url.replace("https:", "http:")
    command = ("edge-agent", "enrol", "--state", tmp_path, "--fleet", url, "--claim-file", "-")
    said = site.run(*command, "--device", "pi-9", stdin=claim, ok=(4,))
    assert "https:// where it runs with TLS" in said


def test_a_site_without_tls_serves_as_well(tmp_path: Path) -> None:
    with open_site(tmp_path, is_tls=False) as plain:
        plain.enrol("pi-1")
        plain.start_agent("pi-1")
        plain.push(make_bundle(plain.root / "bundles", 1, key=plain.publisher))
        plain.wait("version 1", lambda: plain.version("pi-1") == 1)


@pytest.mark.parametrize(
    ("listen", "tls", "is_warned"),
    [("0.0.0.0", "off", True), ("0.0.0.0", "own", False), ("127.0.0.1", "off", False)],
)
def test_a_port_in_the_clear_that_others_can_reach_is_warned_of(
    tmp_path: Path, listen: str, tls: str, is_warned: bool
) -> None:
    require_mosquitto()
    site = Site(tmp_path, is_tls=tls == "own")
    command = ("fleet", "serve", "--data", site.data, "--tls", tls, "--mqtt-port")
    port = site.http_port
    try:
        site.start("fleet", *command, str(free_port()), "--listen", f"{listen}:{port}")
        site.wait("the fleet", site.is_fleet_up)
        assert ("warning" in site.log("fleet")) == is_warned
        assert ("--tls own" in site.log("fleet")) == is_warned
        assert site.stop("fleet") == 0
    finally:
        site.close()
