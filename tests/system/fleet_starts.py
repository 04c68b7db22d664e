"""`make fleet-starts`: a service of several fleets, started and stopped 100 times under load.

Looks for what native code does when threads share it: the drivers of SQLite and PostgreSQL,
OpenSSL, Alembic's context, which is the process's. A site with fleets on both data bases is started
(in every tenth round from nothing, so that all migrate at once), asked by many clients and devices
while fleets are added and removed, and stopped in the middle of it, every third time by SIGKILL.
Python's fault handler is on. Counted are processes that ended by another signal than ours, or with
words of the fault handler, or not in time, and answers of 500 and 501.

Before that, fleets migrate at once in processes of their own, without and with the lock around
Alembic: without it they crash, which shows that the look finds what it looks for.

Prints `{"starts": …, "crashes": …, …}`; exit code 1 unless nothing crashed that had its lock.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import requests

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.topics import Channel
from edgefleet_fleet import site_folder
from edgefleet_fleet.client import Client
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.errors import EdgefleetError
from tests.fleet.device import Device, Identity, enrol
from tests.fleet.postgres import Cluster
from tests.fleet.running import Fleet, free_port, require
from tests.fleet.stage import FLEET
from tests.fleet.tenants import Tenant

_LITE: Final = ("la", "lb", "lc")
_PG: Final = ("pa", "pb")
_ASKERS: Final = 6
_FRESH_EVERY: Final = 10
_KILL_EVERY: Final = 3
_UP_S: Final = 90.0
_PATHS: Final = (
    "/devices",
    "/audit",
    "/rollouts",
    "/bundles",
    "/doctor",
    "/export/audit",
    "/trust",
)
_FATAL: Final = ("Fatal Python error", "Segmentation fault", "free(): ", "malloc(): ", "corrupted")
_AT_ONCE = """
import contextlib, sys, threading
from pathlib import Path
from edgefleet_fleet.adapters.sql import store
if sys.argv[2] == "unlocked":
    store._MIGRATES = contextlib.nullcontext()
def migrate(number):
    with contextlib.suppress(Exception), contextlib.closing(
        store.Store(store.sqlite_url(Path(sys.argv[1]) / f"{number}.db"))
    ) as found:
        found.migrate()
threads = [threading.Thread(target=migrate, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@dataclass
class Score:
    """What was done, and what was found."""

    starts: int = 0
    crashes: int = 0
    late: int = 0
    stops: int = 0
    kills: int = 0
    requests: int = 0
    server_errors: int = 0
    messages: int = 0
    added: int = 0
    removed: int = 0
    unlocked: int = 0
    unlocked_crashes: int = 0
    locked: int = 0
    locked_crashes: int = 0
    words: list[str] = field(default_factory=list)


@dataclass
class Ground:
    """A data directory with its fleets, and a device in each of them."""

    site: Fleet
    tenants: list[Tenant]
    boards: dict[str, Identity] = field(default_factory=dict)

    @classmethod
    def new(cls, folder: Path, cluster: Cluster) -> Ground:
        """Nothing but configuration."""
        site = Fleet(folder / "fleet", free_port(), free_port())
        site.environ = {"PYTHONFAULTHANDLER": "1"}
        DataDir(site.data).prepare(FLEET, public_host="")
        tenants = []
        for name in (*_LITE, *_PG):
            tenant = Tenant(site.data / "fleets" / name, site.http_port, free_port())
            tenant.name = name
            site_folder.make(DataDir(tenant.data), mqtt_port=tenant.mqtt_port)
            if name in _PG:
                with (tenant.data / "fleet.toml").open("a") as file:
                    file.write(f'database_url = "{cluster.new_database()}"\n')
            tenants.append(tenant)
        return cls(site, tenants)

    def end(self) -> None:
        """Leave no process behind, whatever went wrong."""
        if self.site.process is not None and self.site.process.poll() is None:
            self.site.kill()

    def wait(self) -> None:
        """Until all fleets run."""
        until = time.monotonic() + _UP_S
        for tenant in (self.site, *self.tenants):
            while not _is_well(tenant):
                assert self.site.process is not None
                if self.site.process.poll() is not None or time.monotonic() > until:
                    raise TimeoutError
                time.sleep(0.1)

    def settle(self, publisher: PrivateKey, folder: Path) -> None:
        """Trust, tokens, and a device for each fleet, once."""
        for tenant in self.tenants:
            tenant.secret = DataDir(tenant.data).read_token()
            if tenant.name in self.boards:
                continue
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                tenant.trust(publisher)
            claim = tenant.client.post("/claims", {})["claim"]
            self.boards[tenant.name] = enrol(tenant.url, claim, "cam", folder / tenant.name)


class Load:
    """Clients, devices, and an admin who adds and removes fleets, until it ends."""

    def __init__(self, ground: Ground, score: Score, seed: int) -> None:
        self._ground, self._score = ground, score
        self._over = threading.Event()
        self._lock = threading.Lock()
        tasks = [lambda n=n: self._ask(random.Random(seed + n)) for n in range(_ASKERS)]
        tasks += [lambda name=name: self._say(name) for name in ground.boards]
        tasks.append(self._add_and_remove)
        self._threads = [threading.Thread(target=task) for task in tasks]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, dice: random.Random) -> None:
        with requests.Session() as session:
            while not self._over.is_set():
                whose = dice.choice([self._ground.site, *self._ground.tenants])
                session.headers["Authorization"] = f"Bearer {whose.token}"
                with suppress(requests.RequestException):
                    if dice.random() < 0.3:
                        url = f"{whose.url}/api/v1/groups/g{dice.randrange(20)}"
                        answer = session.put(
                            url, json={"filter": "all", "replace": True}, timeout=20
                        )
                    else:
                        url = f"{whose.url}/api/v1{dice.choice(_PATHS)}"
                        answer = session.get(url, timeout=20)
                    self._count(requests=1, server_errors=int(answer.status_code in (500, 501)))

    def _say(self, name: str) -> None:
        with (
            suppress(OSError, AssertionError, Exception),
            Device(self._ground.boards[name], name) as device,
        ):
            while not self._over.is_set():
                device.say(Channel.ONLINE, device._presence(online=True), retain=True)
                self._count(messages=1)
                self._over.wait(0.02)

    def _add_and_remove(self) -> None:
        client = Client(self._ground.site.url, self._ground.site.token)
        with suppress(EdgefleetError, requests.RequestException):
            while not self._over.is_set():
                client.post("/fleets", {"name": "guest", "mqtt_port": free_port()})
                self._count(added=1)
                client.delete("/fleets/guest")
                self._count(removed=1)

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                setattr(self._score, name, getattr(self._score, name) + value)


def _is_well(fleet: Fleet) -> bool:
    with suppress(requests.RequestException):
        return fleet.health() == 200
    return False


def at_once(score: Score, runs: int) -> None:
    """Four data bases are migrated at once, each run in a process, without the lock and with it."""
    for how in ("unlocked", "locked"):
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run(
                    [sys.executable, "-X", "faulthandler", "-c", _AT_ONCE, folder, how],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            has_crashed = done.returncode < 0 or any(word in done.stderr for word in _FATAL)
            setattr(score, how, getattr(score, how) + 1)
            name = f"{how}_crashes"
            setattr(score, name, getattr(score, name) + has_crashed)


def one_round(ground: Ground, score: Score, publisher: PrivateKey, number: int) -> None:
    """One start, one load, one end."""
    dice, site = random.Random(number), ground.site
    seen = site.log.stat().st_size if site.log.exists() else 0
    site.launch()
    score.starts += 1
    try:
        ground.wait()
        ground.settle(publisher, site.data.parent)
        with Load(ground, score, number * 100):
            time.sleep(dice.uniform(1.0, 5.0))
            if number % _KILL_EVERY == 2:
                site.kill()
                score.kills += 1
            else:
                code = site.stop()
                score.stops += 1
                score.crashes += int(code != 0)
                if code:
                    score.words.append(f"round {number}: ended with {code}")
    except (TimeoutError, subprocess.TimeoutExpired):
        score.late += 1
        assert site.process is not None
        if site.process.poll() is not None and site.process.returncode < 0:
            score.crashes += 1
        site.kill()
    with site.log.open(errors="replace") as log:
        log.seek(seen)
        said = log.read()
    for word in _FATAL:
        if word in said:
            score.crashes += 1
            score.words.append(said[said.index(word) :][:3000])
    if "Traceback" in said:
        score.words.append(said[said.index("Traceback") :][:3000])


@contextmanager
def grounds(cluster: Cluster, rounds: int) -> Iterator[Iterator[tuple[int, Ground]]]:
    """The ground of each round; a new one now and then."""
    with ExitStack() as stack:

        def give() -> Iterator[tuple[int, Ground]]:
            ground: Ground | None = None
            for number in range(rounds):
                if ground is None or number % _FRESH_EVERY == 0:
                    folder = stack.enter_context(tempfile.TemporaryDirectory())
                    ground = Ground.new(Path(folder), cluster)
                yield number, ground

        yield give()


def main() -> None:
    """Run it, and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--migrations", type=int, default=20, help="runs without and with the lock")
    asked = parser.parse_args()
    require("mosquitto", "mosquitto")
    score, publisher = Score(), PrivateKey.generate_p256()
    began = time.monotonic()
    at_once(score, asked.migrations)
    with Cluster.start() as cluster, grounds(cluster, asked.starts) as turns:
        for number, ground in turns:
            try:
                one_round(ground, score, publisher, number)
            finally:
                ground.end()
            if (number + 1) % _FRESH_EVERY == 0:
                print(json.dumps(asdict(score) | {"words": len(score.words)}), file=sys.stderr)
    found = asdict(score)
    for words in found.pop("words"):
        print(words, file=sys.stderr)
    print(json.dumps(found | {"seconds": round(time.monotonic() - began)}))
    if score.crashes or score.locked_crashes or score.server_errors:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
