"""What the pages of a large fleet cost: bytes and seconds of each, with DEVICES in SQLite.

A real control room with its broker. Devices, what they reported and their telemetry are put into
its data base as they are kept there; a rollout to all of them is asked for as anybody does, and
asks the first wave. Each page is fetched as a browser does, in turns; seconds are the median.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import requests

from edgefleet_contract.bundle import Digest
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.reported import Presence, Reported, RunningModel
from edgefleet_fleet.adapters.sql.store import Store, Transaction, sqlite_url
from edgefleet_fleet.datadir import DataDir
from tests.contract.makers import write_bundle
from tests.fleet.device import PI5, model_sample, system_sample
from tests.fleet.running import Fleet, free_port, require

PAGES = (
    "/",
    "/devices",
    "/devices?to=phase%3Dfailed",
    "/rollouts",
    "/rollouts/{rollout}",
    "/groups",
    "/metrics",
)
_DAY = 86400
_WORDS = (
    (0.01, Phase.FAILED, Reason.GOLDEN_MISMATCH),
    (0.015, Phase.ROLLED_BACK, Reason.PROBATION_FAILED),
)


def fill(tx: Transaction, count: int, samples: int, now: int) -> None:
    """Devices of three kinds, of which a few are in trouble and a few silent."""
    dice = random.Random(7)
    for number in range(count):
        name, luck = f"cam-{number:05}", dice.random()
        board = dice.choice(("pi5", "pi4", "jetson-orin"))
        able = replace(PI5, hw=board, hardware_class=board)
        serial = f"{number:x}"
        expires = now + 60 * _DAY
        tx.devices.enrol(
            name,
            key_id=f"{number:064x}",
            serial=serial,
            expires=expires,
            at=now - 90 * _DAY,
            capabilities=able,
        )
        is_silent = luck > 0.99
        seen = now - (dice.randrange(8, 40) * _DAY if is_silent else dice.randrange(60))
        tx.devices.touch(name, at=seen)
        tx.devices.set_presence(Presence(name, "boot", not is_silent and luck < 0.97, "0.1.0", 1))
        phase, reason = next(
            ((phase, why) for limit, phase, why in _WORDS if luck < limit), (Phase.COMMITTED, None)
        )
        digest = Digest(f"{dice.randrange(3):064x}")
        runs = RunningModel("digits", "digits", dice.choice((6, 7)), digest, "int8", "onnxruntime")
        tx.devices.set_reported(
            Reported(
                device=name,
                boot_id="boot",
                ts=seen,
                agent="0.1.0",
                order_seq=0,
                rollout="",
                phase=phase,
                models=(runs,),
                capabilities=able,
                reason=reason,
                quarantined=(digest,) if reason else (),
            )
        )
        for ts in range(samples):
            tx.history.add_telemetry(system_sample(name, ts=(seen + ts) * 1000), keep=samples)
            tx.history.add_telemetry(model_sample(name, ts=(seen + ts) * 1000), keep=samples)


@contextmanager
def large_fleet(folder: Path, count: int, samples: int) -> Iterator[tuple[Fleet, str]]:
    """A control room with so many devices, and a rollout that is at its first wave."""
    fleet, publisher = Fleet(folder / "fleet", free_port(), free_port()), PrivateKey.generate_p256()
    fleet.start()
    try:
        fleet.trust(publisher)
        with closing(Store(sqlite_url(DataDir(fleet.data).database))) as store, store.begin() as tx:
            fill(tx, count, samples, int(time.time()))
        fleet.client.put("/groups/pi5s", {"filter": "hw=pi5"})
        bundle = write_bundle(folder / "bundle", publisher, version=8)
        yield fleet, fleet.push(bundle, waves=["100n", 25, 100])
    finally:
        fleet.stop()


def main(argv: list[str] | None = None) -> int:
    """Print a row for each page."""
    parser = argparse.ArgumentParser(prog="python -m bench pages", description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=5, help="of telemetry, for each stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stay", action="store_true", help="print the address, and stay there")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(argv)
    require("mosquitto", "mosquitto")
    with (
        tempfile.TemporaryDirectory() as home,
        large_fleet(Path(home), asked.devices, asked.samples) as (fleet, rollout),
        requests.Session() as session,
    ):
        if asked.stay:
            input(f"{fleet.url}/?token={fleet.token}  /rollouts/{rollout}  (Enter ends it)")
            return 0
        session.get(f"{fleet.url}/", params={"token": fleet.token}, timeout=300)
        sizes: dict[str, int] = {}
        times: dict[str, list[float]] = {page: [] for page in PAGES}
        for page in PAGES * asked.rounds:
            began = time.perf_counter()
            answer = session.get(fleet.url + page.format(rollout=rollout), timeout=300)
            times[page].append(time.perf_counter() - began)
            sizes[page] = len(answer.content) if answer.ok else 0
    rows = {
        page: {"bytes": sizes[page], "seconds": round(statistics.median(times[page]), 3)}
        for page in PAGES
    }
    if asked.json:
        print(json.dumps({"devices": asked.devices, "pages": rows}))
    else:
        for page, row in rows.items():
            print(f"{page:32} {row['bytes']:>12,} bytes {row['seconds']:>8.3f} s")
    return 0
