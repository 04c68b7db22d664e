"""`make fleet-kills`: kill -9 of the control room in running rollouts, a hundred times; and counts.

Real `fleet serve` processes on SQLite and on PostgreSQL, each with its own Mosquitto, and scripted
devices that speak MQTT to it. While a rollout runs, a second thread kills the service, now and then
its broker, and crashes the data base, at random moments (also while it is starting). Operators go
on asking for things meanwhile. When a rollout has ended and the storm is over, it is judged:

- wrong: it did not end as its script demands (state, every device's outcome, what every device
  runs, both as it says itself and as the fleet knows it); a request that was answered with 2xx has
  left no trace; or an event that the broker acknowledged to its device is not in the history once,
  told apart by device, boot and number.
- asked twice: a device was sent the target of a rollout under more order numbers while the rollout
  was on than it gave reason for: one, and another for each time that it said that it could not
  fetch it. An order that is published again under its number is no second ask, and neither is one
  that takes a device back to an earlier target; orders are not old enough to be renewed here.

Prints `{"kills": …, "wrong": …, "asked_twice": …}` and what else was done; exit code 1 unless
both are 0.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import EdgefleetError, TransientError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.orders import Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Event
from edgefleet_fleet import ceremony
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.errors import Conflict
from edgefleet_fleet.push import read_bundle, upload
from tests.contract.makers import write_bundle
from tests.fleet.device import enrol
from tests.fleet.postgres import Cluster
from tests.fleet.running import Fleet, free_port, require, until
from tests.fleet.stage import FLEET
from tests.fleet.steady import Steady

_SLOT: Final = "digits"
_PATIENCE_S: Final = 60.0
_KILLS_A_ROLLOUT: Final = 5
_MOMENT_S: Final = 1.6  # a kill comes within this, after the one before


@dataclass(frozen=True, slots=True)
class Script:
    """How a rollout goes: which devices (by place) fail, what is asked, and how it is to end.

    `ends` are state and outcomes of devices; `hand` is what a person does in the middle of it. The
    devices of `loses` cannot fetch it the first so many times.
    """

    name: str
    state: str
    outcomes: dict[str, int]
    fails: frozenset[int] = frozenset()
    wish: dict[str, Any] = field(default_factory=dict)
    hand: str = ""
    loses: dict[int, int] = field(default_factory=dict)


def scripts(devices: int) -> tuple[Script, ...]:
    """All ways in which a rollout of so many devices goes here; the first device is a canary."""
    return (
        Script("good", "completed", {"good": devices}, wish={"soak_s": 1}),
        Script("bad", "paused", {"bad": 1, "pending": devices - 1}, frozenset(range(devices))),
        Script(
            *("tolerated", "completed", {"good": devices - 1, "bad": 1}, frozenset({devices - 1})),
            wish={"waves": [100], "gate": {"pass_ratio": 0.5, "max_failures": devices}},
        ),
        Script(
            "promoted", "completed", {"good": devices}, wish={"hold_after": [1]}, hand="promote"
        ),
        Script("reverted", "aborted", {"reverted": devices}, hand="revert"),
        Script(
            *("retried", "completed", {"good": devices - 1, "undelivered": 1}),
            wish={
                "waves": [100],
                "retries": {"most": 2, "wait_s": 1},
                "gate": {"undone_limit": 0.9},
            },
            loses={0: 1, devices - 2: 2, devices - 1: 3},
        ),
    )


@dataclass
class Score:
    """What was done, and what was found; the first three are what is looked at."""

    kills: int = 0
    wrong: int = 0
    asked_twice: int = 0
    rollouts: int = 0
    broker_kills: int = 0
    database_crashes: int = 0
    died_alone: int = 0
    requests: int = 0
    lost_requests: int = 0
    events: int = 0
    lost_events: int = 0
    wrong_ends: int = 0

    def add(self, other: Score) -> None:
        """Add another's counts."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Storm:
    """Kills at random moments, from `with` on until its end; the service runs afterwards."""

    fleet: Fleet
    chance: random.Random
    score: Score
    most: int
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._blow, name="storm")
        self._failed: BaseException | None = None

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _blow(self) -> None:
        try:
            left = self.most
            while left and not self._is_over.wait(self.chance.uniform(0, _MOMENT_S)):
                left -= self._strike()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._failed = error
        finally:
            with suppress(Exception):
                self._stand_up()

    def _strike(self) -> int:
        """Kill something; 1 where it was the service."""
        if not self._is_alive():
            self.score.died_alone += 1
            self._stand_up()
            return 0
        throw = self.chance.random()
        if throw < 0.2:
            with suppress(subprocess.CalledProcessError, ProcessLookupError):
                os.kill(self.fleet.broker_pid(), signal.SIGKILL)
                self.score.broker_kills += 1
            return 0
        if throw < 0.45 and self.cluster is not None:
            self.cluster.restart()
            self.score.database_crashes += 1
            return 0
        self.fleet.kill()
        self.score.kills += 1
        if throw < 0.6:  # again, before it is up
            self.fleet.launch()
            time.sleep(self.chance.uniform(0, 2.5))
            self.fleet.kill()
            self.score.kills += 1
            self._stand_up()
            return 2
        self._stand_up()
        return 1

    def _is_alive(self) -> bool:
        return self.fleet.process is not None and self.fleet.process.poll() is None

    def _stand_up(self) -> None:
        """As systemd does: start it until it stays."""
        for _ in range(10):
            if self._is_alive():
                return
            self.fleet.launch()
            if self.fleet.first_words().startswith("http"):
                return
            self.fleet.kill()
        raise AssertionError(self.fleet.log.read_text()[-4000:])


@dataclass
class Trial:
    """One control room with its devices, through as many rollouts as are wanted."""

    fleet: Fleet
    store: Store
    publisher: PrivateKey
    folder: Path
    devices: list[Steady]
    chance: random.Random
    score: Score
    cluster: Cluster | None = None
    failing: dict[str, frozenset[int]] = field(default_factory=dict)
    losing: dict[tuple[str, int], int] = field(default_factory=dict)
    lost: Counter[tuple[str, int]] = field(default_factory=Counter)
    version: int = 0
    groups: set[str] = field(default_factory=set)
    tries: int = 0

    def run(self, *, kills: int) -> None:
        """Rollouts in a storm until the service was killed so often."""
        kinds = scripts(len(self.devices))
        while self.score.kills < kills:
            script = kinds[0] if not self.version else self.chance.choice(kinds)
            left = min(_KILLS_A_ROLLOUT, kills - self.score.kills)
            self._roll_out(script, most=self.chance.randint(1, left))

    def _roll_out(self, script: Script, *, most: int) -> None:
        self.version += 1
        self.score.rollouts += 1
        before = {device.name: device.version(_SLOT) for device in self.devices}
        bundle, wish = self._release(script)
        with Storm(self.fleet, self.chance, self.score, most, self.cluster):
            name = self._begin(bundle, wish)
            if script.hand == "promote":
                self._wait(name, lambda view: view["wave_states"][0] == "passed")
                self._by_hand(name, "promote", lambda view: view["wave"] > 0)
            elif script.hand == "revert":
                self._wait(name, lambda view: view["counts"]["good"] >= 1)
                self._by_hand(name, "revert", lambda view: view["state"] in ("aborting", "aborted"))
            is_right = self._wait(name, lambda view: self._has_ended(script, view, before))
        self._judge(script, name, bundle, is_right=is_right)

    def _release(self, script: Script) -> tuple[Digest, dict[str, Any]]:
        """A bundle that is there and released, before the storm; and the wish for its rollout."""
        folder = write_bundle(self.folder, self.publisher, version=self.version)
        found, client = read_bundle(folder), self.fleet.client
        upload(client, found, check=True, progress=lambda *_: None)
        named = (found.manifest.model, found.manifest.version)
        body = ceremony.release(client.get("/trust"), self.publisher, *named, found.manifest_bytes)
        client.post("/trust/targets", body)
        self.failing[found.digest] = script.fails
        self.losing |= {(found.digest, place): times for place, times in script.loses.items()}
        canary = {"canaries": [self.devices[0].name], "waves": [50, 100]}
        names = {"bundle": found.digest, "signature_sha256": found.signature_sha256}
        return Digest(found.digest), {**names, **canary, **script.wish}

    def fails(self, place: int, target: Target) -> Reason | None:
        """What the script says of a device."""
        here = (target.bundle_sha256, place)
        if self.lost[here] < self.losing.get(here, 0):
            self.lost[here] += 1
            return Reason.DOWNLOAD_FAILED
        bad = place in self.failing.get(target.bundle_sha256, frozenset())
        return Reason.GOLDEN_MISMATCH if bad else None

    def _begin(self, bundle: str, wish: dict[str, Any]) -> str:
        """The rollout's id; asked for again only where no answer came and none is there."""
        accepted = ""
        while True:
            with suppress(TransientError):
                listed = self.fleet.client.get("/rollouts")["rollouts"]
                found = [view["id"] for view in listed if view["bundle_sha256"] == bundle]
                if accepted and accepted not in found:
                    self._complain(f"{accepted} was accepted, and is not there")
                    self.score.lost_requests += 1
                if found:
                    return str(found[0])
                self.score.requests += 1
                accepted = str(self.fleet.client.post("/rollouts", wish)["id"])

    def _by_hand(self, name: str, verb: str, is_done: Callable[[Any], bool]) -> None:
        while True:
            with suppress(TransientError):
                if is_done(self.fleet.client.get(f"/rollouts/{name}")):
                    return
                self.score.requests += 1
                with suppress(Conflict):  # it was done, and its answer lost
                    self.fleet.client.post(f"/rollouts/{name}/{verb}")

    def _wait(self, name: str, is_so: Callable[[Any], bool]) -> bool:
        """Whether it came to be, while other requests go on."""
        deadline = time.monotonic() + _PATIENCE_S

        def look() -> bool:
            with suppress(TransientError):
                self._ask_for_a_group()
                return is_so(self.fleet.client.get(f"/rollouts/{name}"))
            return False

        while time.monotonic() < deadline:
            with suppress(AssertionError):
                until(look, timeout=2)
                return True
        return False

    def _ask_for_a_group(self) -> None:
        self.tries += 1
        self.score.requests += 1
        self.fleet.client.put(f"/groups/g{self.tries}", {"filter": "all"})
        self.groups.add(f"g{self.tries}")

    def _has_ended(self, script: Script, view: Any, before: dict[str, int]) -> bool:
        found = Counter(member["outcome"] for member in view["devices"])
        if script.hand == "revert":  # who was not asked yet, or had not begun, is withdrawn
            found["reverted"] += found.pop("withdrawn", 0)
        if (view["state"], found) != (script.state, Counter(script.outcomes)):
            return False
        runs = {
            member["device"]: self.version
            if member["outcome"] == "good"
            else before[member["device"]]
            for member in view["devices"]
        }
        known = {
            device["id"]: next((m["version"] for m in device["models"] if m["slot"] == _SLOT), 0)
            for device in self.fleet.client.get("/devices")["devices"]
        }
        said = {device.name: device.version(_SLOT) for device in self.devices}
        return known == said == runs

    def _judge(self, script: Script, name: str, bundle: Digest, *, is_right: bool) -> None:
        if not is_right:
            self.score.wrong_ends += 1
            said = {device.name: device.version(_SLOT) for device in self.devices}
            view = self.fleet.client.get(f"/rollouts/{name}")
            self._complain(f"{name} ({script.name}) runs {said}: {json.dumps(view)}")
        for place, device in enumerate(self.devices):
            numbers = self._asks(device.name, bundle)
            if len(numbers) > 1 + min(2, self.lost[bundle, place]):
                self.score.asked_twice += 1
                self._complain(f"{name} ({script.name}): {device.name} in orders {numbers}")

    def _asks(self, device: str, bundle: Digest) -> list[int]:
        with self.store.begin() as tx:
            newest = tx.orders.newest(device)
            orders = [tx.orders.get(device, seq + 1) for seq in range(newest.seq if newest else 0)]
        return [
            order.seq
            for order in orders
            if order is not None and any(t.bundle_sha256 == bundle for t in order.targets)
        ]

    def take_stock(self) -> None:
        """Count what was accepted or acknowledged and is not there."""
        there = {group["name"] for group in self.fleet.client.list("/groups")}
        lost = self.groups - there
        if lost:
            self._complain(f"groups that were accepted are not there: {sorted(lost)}")
        self.score.lost_requests += len(lost)
        for device in self.devices:
            told = set(device.acknowledged)
            with suppress(AssertionError):
                until(partial(self._has_all, device.name, told))
            found = self._history(device.name)
            wrong = [key for key in sorted(told) if found[key] != 1]
            if wrong:
                self._complain(f"events of {device.name} that are not there once: {wrong}")
            self.score.events += len(told)
            self.score.lost_events += len(wrong)

    def _has_all(self, device: str, told: set[tuple[str, int]]) -> bool:
        return told <= set(self._history(device))

    def _history(self, device: str) -> Counter[tuple[str, int]]:
        with self.store.begin() as tx:
            rows = tx.history.page(device, limit=100_000)
        steps = [entry.told for entry in rows if isinstance(entry.told, Event)]
        return Counter((event.boot_id, event.seq) for event in steps)

    @staticmethod
    def _complain(words: str) -> None:
        print(words, file=sys.stderr, flush=True)


@contextmanager
def trial(
    folder: Path, *, seed: int, devices: int = 6, cluster: Cluster | None = None
) -> Iterator[Trial]:
    """A control room that runs, with its devices, on PostgreSQL where there is a cluster."""
    require("mosquitto", "mosquitto")
    fleet = Fleet(folder / "fleet", free_port(), free_port())
    url = sqlite_url(DataDir(fleet.data).database)
    if cluster is not None:
        url = cluster.new_database()
        fleet.environ["FLEET_DATABASE_URL"] = url
    with ExitStack() as stack:
        fleet.start()
        stack.callback(fleet.stop)
        publisher = PrivateKey.generate_p256()
        fleet.trust(publisher)
        claim = fleet.client.post("/claims", {"uses": devices})["claim"]
        store = Store(url)
        stack.callback(store.close)
        chance, score = random.Random(seed), Score()
        found = Trial(fleet, store, publisher, folder / "b", [], chance, score, cluster)
        for place in range(devices):
            identity = enrol(fleet.url, claim, f"d{place}", folder / f"d{place}")
            device = Steady(identity, FLEET, partial(found.fails, place))
            found.devices.append(stack.enter_context(device))
        yield found


def storm(
    folder: Path, *, kills: int, seed: int, devices: int = 6, cluster: Cluster | None = None
) -> Score:
    """The score of a control room that was killed so often."""
    with trial(folder, seed=seed, devices=devices, cluster=cluster) as found:
        found.run(kills=kills)
        found.take_stock()
        score = found.score
    score.wrong = score.wrong_ends + score.lost_requests + score.lost_events
    return score


def main() -> int:
    """Run it; 0 where nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    total = Score()
    half = asked.kills // 2
    with tempfile.TemporaryDirectory(prefix="edgefleet-kills-") as root, Cluster.start() as cluster:
        for name, kills, base in (("pg", half, cluster), ("lite", asked.kills - half, None)):
            folder = Path(root) / name
            folder.mkdir()
            try:
                total.add(storm(folder, kills=kills, seed=asked.seed, cluster=base))
            except (AssertionError, EdgefleetError):
                print((folder / "fleet.log").read_text()[-6000:], file=sys.stderr)
                raise
            print(f"{name}: {asdict(total)}", file=sys.stderr, flush=True)
    print(json.dumps(asdict(total)))
    return 1 if total.wrong or total.asked_twice else 0


if __name__ == "__main__":
    sys.exit(main())
