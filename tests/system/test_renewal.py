"""A certificate that is about to end is replaced; the device stays online."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edgefleet_agent.renewal import is_due
from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet.authority import Authority
from tests.system.site import open_site

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def certificate_for(authority: Authority, key: PrivateKey, *, now: datetime) -> str:
    return authority.issue_client("pi-1", key.public, now=now, days=1).pem


@pytest.mark.parametrize(("hours", "due"), [(0, False), (15, False), (17, True), (30, True)])
def test_a_certificate_is_due_when_a_third_of_its_life_is_left(hours: int, due: bool) -> None:
    authority, key = Authority.create("demo", now=NOW), PrivateKey.generate_p256()
    pem = certificate_for(authority, key, now=NOW)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert is_due(certificate, (NOW + timedelta(hours=hours)).timestamp()) is due


@pytest.mark.system
def test_a_device_whose_certificate_is_about_to_end_renews_it_and_stays_in_service(
    tmp_path: Path,
) -> None:
    with open_site(tmp_path) as site:
        state = site.enrol("pi-1")
        path = state / "identity" / "device.crt"
        keys = site.data / "keys"
        authority = Authority.load((keys / "ca.pem").read_bytes(), (keys / "ca.key").read_bytes())
        key = PrivateKey.load(state / "identity" / "device.key")
        nearly = certificate_for(authority, key, now=datetime.now(UTC) - timedelta(hours=23))
        path.write_text(nearly)
        age_the_known_certificate(site.data / "fleet.db")
        site.start_agent("pi-1")
        site.wait("the new certificate", lambda: "certificate: renewed" in site.log("pi-1"))
        renewed = x509.load_pem_x509_certificate(path.read_bytes())
        assert renewed.not_valid_after_utc - datetime.now(UTC) > timedelta(days=80)
        assert not path.with_name("device.crt.next").exists()
        site.wait("the device", lambda: site.get("/devices/pi-1")["online"])
        (row,) = [row for row in site.get("/audit")["audit"] if row["what"] == "device.renew"]
        assert row["subject"] == "pi-1"
        listed = site.get("/devices/pi-1")["certificate_expires"]
        assert listed == int(renewed.not_valid_after_utc.timestamp())

        # what it holds now is what it comes back with, and nothing is renewed twice
        assert site.stop("pi-1") == 0
        site.start_agent("pi-1")
        site.wait("the device", lambda: site.get("/devices/pi-1")["online"])
        assert site.log("pi-1").count("certificate: renewed") == 1


def age_the_known_certificate(database: Path) -> None:
    import sqlite3

    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE certificate SET issued_at = issued_at - 5000000")
    connection.close()
