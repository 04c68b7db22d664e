"""Rooms to test in: a store on SQLite and on a real PostgreSQL, a shelf, an authority.

`fleet` is the real program: its own process, its own broker, found ports, a data directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet.access import Access, hash_token
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.api import Services, services_of
from edgefleet_fleet.client import Client
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.work import Room
from tests.fleet.postgres import Cluster
from tests.fleet.stage import FLEET, ME, TOKEN, Clock, Outbox, Stage


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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def publisher() -> PrivateKey:
    return PrivateKey.generate_p256()


@pytest.fixture
def services(tmp_path: Path, clock: Clock, publisher: PrivateKey) -> Iterator[Services]:
    """A whole control room without broker and sockets; `publisher` is trusted."""
    data = DataDir(tmp_path / "data")
    authority = data.prepare(FLEET, public_host="fleet.example")
    store = Store(sqlite_url(data.database))
    store.migrate()
    shelf = FileShelf(data.blobs)
    shelf.prepare()
    room = Room(
        fleet=FLEET,
        config=Config(telemetry_keep=5),
        store=store,
        shelf=shelf,
        authority=authority,
        director=data.director(),
        base_url="http://fleet.example:8080",
        mqtt_host="fleet.example",
        mqtt_port=8883,
        link=Outbox(),
        clock=clock,
    )
    found = services_of(room, Access(hash_token(TOKEN)))
    found.library.trust(publisher.public.pem, actor=ME)
    yield found
    store.close()


@pytest.fixture
def stage(services: Services, publisher: PrivateKey, tmp_path: Path) -> Stage:
    return Stage(services, publisher, tmp_path)


@dataclass
class Fleet:
    """The real program `fleet serve`, which can be killed and started again."""

    data: Path
    http_port: int
    mqtt_port: int
    process: subprocess.Popen[str] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.data.with_name("fleet.log")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def token(self) -> str:
        return DataDir(self.data).read_token()

    @property
    def client(self) -> Client:
        return Client(self.url, self.token)

    def start(self) -> str:
        """Start it; the address that it prints when it is ready."""
        command = [sys.executable, "-m", "edgefleet_fleet", "serve", "--data", str(self.data)]
        command += ["--name", FLEET, "--listen", f"127.0.0.1:{self.http_port}"]
        command += ["--mqtt-port", str(self.mqtt_port)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line.startswith("http"), self.log.read_text()
        return line

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`fleet …` against it."""
        return subprocess.run(
            [sys.executable, "-m", "edgefleet_fleet", *map(str, arguments)],
            env={**os.environ, "FLEET_URL": self.url, "FLEET_TOKEN": self.token},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """`fleet serve`, running."""
    require("mosquitto", "mosquitto")
    found = Fleet(tmp_path / "fleet", free_port(), free_port())
    found.start()
    try:
        yield found
    finally:
        if found.process is not None and found.process.poll() is None:
            found.stop()


def require(program: str, package: str) -> str:
    """Where a program is; installed in CI, a skip with its reason elsewhere."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    found = shutil.which(program, path=path)
    if found is None and os.environ.get("CI") == "true":
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], check=True
        )
        found = shutil.which(program, path=path)
        assert found is not None, f"{package} does not bring {program}"
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")
    return found
