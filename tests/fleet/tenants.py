"""Fleets beside the site's own: the same real program, at other addresses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet import cli
from tests.fleet.running import Fleet, free_port


@dataclass
class Tenant(Fleet):
    """A fleet of the site: the same program, at another address, with a token of its own."""

    name: str = ""
    secret: str = ""

    @property
    def url(self) -> str:
        return f"{super().url}/fleets/{self.name}"

    @property
    def token(self) -> str:
        return self.secret

    @property
    def key(self) -> Path:
        return self.data.parents[2] / f"{self.name}.pem"

    def trust(self, publisher: PrivateKey) -> None:
        publisher.save(self.key)
        offline = self.key.with_suffix(".offline")
        fleet(self, "keys", "init", "--out", offline, "--publisher", self.key)


def fleet(whose: Fleet, *words: str | Path) -> None:
    """`fleet …` against it, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEET_URL", whose.url)
        patch.setenv("FLEET_TOKEN", whose.token)
        cli.app([str(word) for word in words], standalone_mode=False, prog_name="fleet")


def add(site: Fleet, name: str) -> Tenant:
    """A new fleet."""
    view = site.client.post("/fleets", {"name": name, "mqtt_port": free_port()})
    found = Tenant(site.data / "fleets" / name, site.http_port, view["mqtt_port"])
    found.name, found.secret = name, view["token"]
    assert view["url"] == found.url
    return found
