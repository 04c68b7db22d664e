"""Rooms to test in: a store on SQLite and on a real PostgreSQL, a shelf, an authority.

`fleet` is the real program: its own process, its own broker, found ports, a data directory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.services import Services
from tests.fleet import objects
from tests.fleet.device import Device, Identity, enrol
from tests.fleet.postgres import Cluster
from tests.fleet.running import Fleet, free_port, require
from tests.fleet.stage import FLEET, Clock, Stage, open_services

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A private PostgreSQL cluster, for the whole run."""
    with Cluster.start() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, once on each data base."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "fleet.db")
    else:
        url = request.getfixturevalue("cluster").new_database()
    found = Store(url)
    found.migrate()
    yield found
    found.close()


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of an S3 server, for the whole run."""
    with objects.running() as address:
        yield address


@pytest.fixture
def bucket(object_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a shelf in a new bucket; the environment says where its server is."""
    for name, value in {**objects.ENVIRONMENT, "AWS_ENDPOINT_URL_S3": object_store}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{objects.new_bucket()}/edge/fleet"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def publisher() -> PrivateKey:
    return PrivateKey.generate_p256()


@pytest.fixture
def roots() -> list[PrivateKey]:
    """The offline root keys."""
    return [PrivateKey.generate_ed25519() for _ in range(3)]


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """The data base of `services`."""
    return sqlite_url(DataDir(tmp_path / "data").database)


@pytest.fixture
def services(
    tmp_path: Path,
    clock: Clock,
    publisher: PrivateKey,
    roots: list[PrivateKey],
    store_url: str,
) -> Iterator[Services]:
    """A whole control room without broker and sockets; `publisher` is trusted."""
    found = open_services(tmp_path / "data", clock, publisher, roots, store_url)
    yield found
    found.room.store.close()


@pytest.fixture
def stage(services: Services, publisher: PrivateKey, tmp_path: Path) -> Stage:
    return Stage(services, publisher, tmp_path)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """`fleet serve`, running, for one test that does what it likes with it."""
    require("mosquitto", "mosquitto")
    found = Fleet(tmp_path / "fleet", free_port(), free_port())
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


@pytest.fixture
def identities(
    fleet: Fleet, publisher: PrivateKey, tmp_path: Path
) -> Iterator[dict[str, Identity]]:
    """Two devices, enrolled over HTTP; forgotten afterwards. `publisher` is trusted.

    Their names are `a` and `b` with a number: rollouts of other tests do not mean them.
    """
    fleet.trust(publisher)
    claim = fleet.client.post("/claims", {"uses": 2})["claim"]
    number = next(_numbers)
    found = {
        letter: enrol(fleet.url, claim, f"{letter}-{number}", tmp_path / letter) for letter in "ab"
    }
    yield found
    for identity in found.values():
        fleet.client.delete(f"/devices/{identity.name}")


@pytest.fixture
def device(identities: dict[str, Identity]) -> Iterator[Device]:
    """The first of them, connected."""
    with Device(identities["a"], FLEET) as found:
        yield found
