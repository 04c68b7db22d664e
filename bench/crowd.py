"""What a device costs the control room, and whether more devices cost more each.

A real `fleet serve` with its Mosquitto and scripted devices on connections of their own, all at
once: they connect, follow a rollout through every step, and send telemetry. For each part: CPU of
the service and of the broker for each device (ms) and the messages that the service kept each
second, on a machine that the devices share. `growth`: the CPU of a device with the most devices
over that with the fewest: 1 where it does not matter how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import requests

from bench._crowd import Scripted, each, enrolled
from bench._marks import put
from edgefleet_contract.keys import PrivateKey
from tests.contract.makers import write_bundle
from tests.fleet.postgres import Cluster
from tests.fleet.running import Fleet, free_port, require

PAGE: Final = Path(__file__).parents[1] / "docs" / "design" / "control-room.md"
PARTS: Final = ("connect", "rollout", "telemetry")
HEAD: Final = (
    "| devices | part | messages | service, ms CPU | broker, ms CPU | service, KiB written "
    "| broker, KiB written | messages each second |"
)
SAMPLES: Final = 10
_LOOK_S: Final = 1.0


@dataclass
class Meter:
    """The CPU seconds of the service and its broker."""

    service: psutil.Process
    broker: psutil.Process

    def read(self) -> tuple[float, float, int, int]:
        """CPU seconds so far, of each, and the bytes that each has written."""
        both = (self.service, self.broker)
        times = [process.cpu_times() for process in both]
        bytes_ = [process.io_counters().write_bytes for process in both]
        return (*(spent.user + spent.system for spent in times), *bytes_)  # type: ignore[return-value] # two of each


@contextmanager
def control_room(folder: Path, url: str) -> Iterator[Fleet]:
    """A service on a data base; SQLite in its own folder where none is named."""
    folder.mkdir()
    environ = {"FLEET_DATABASE_URL": url} if url else {}
    fleet = Fleet(folder / "fleet", free_port(), free_port(), environ=environ)
    fleet.start()
    try:
        fleet.trust(PrivateKey.generate_p256())
        yield fleet
    finally:
        fleet.stop()


def taken(fleet: Fleet) -> int:
    """The messages of devices that the service has stored, as it tells Prometheus."""
    told = requests.get(f"{fleet.url}/metrics", timeout=60).text
    return sum(
        int(line.rpartition(" ")[2])
        for line in told.splitlines()
        if line.startswith("edgefleet_messages_total{")
    )


async def until(is_so: Callable[[], bool]) -> None:
    """Look now and then, in a thread: the devices go on meanwhile."""
    while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - of another process
        await asyncio.sleep(_LOOK_S)


async def parts(fleet: Fleet, devices: list[Scripted], folder: Path) -> dict[str, Any]:
    """The figures of one crowd."""
    service = psutil.Process(fleet.process.pid if fleet.process else 0)
    meter = Meter(service, psutil.Process(fleet.broker_pid()))
    found: dict[str, Any] = {}

    def said() -> int:
        return sum(device.said for device in devices)

    @contextmanager
    def part(name: str) -> Iterator[None]:
        begun, before = time.perf_counter(), meter.read()
        before_said = said()
        yield
        took = time.perf_counter() - begun
        messages = said() - before_said
        spent = [now - then for now, then in zip(meter.read(), before, strict=True)]
        found[name] = {
            "service_ms": round(1e3 * spent[0] / len(devices), 2),
            "broker_ms": round(1e3 * spent[1] / len(devices), 2),
            "service_written_kib": round(spent[2] / 1024 / len(devices), 1),
            "broker_written_kib": round(spent[3] / 1024 / len(devices), 1),
            "messages": messages,
            "messages_per_s": round(messages / took, 1),
            "seconds": round(took, 2),
        }

    with part("connect"):
        await each(devices, Scripted.connect)
        await until(lambda: taken(fleet) >= said())
    bundle = await asyncio.to_thread(
        write_bundle, folder / "bundle", PrivateKey.load(fleet.key), version=1
    )
    with part("rollout"):
        rollout = await asyncio.to_thread(fleet.push, bundle, waves=[100])
        await until(lambda: fleet.client.get(f"/rollouts/{rollout}")["state"] == "completed")
        await until(lambda: taken(fleet) >= said())
    with part("telemetry"):
        for ts in range(1, SAMPLES + 1):
            for device in devices:
                device.measured(ts)
            await asyncio.sleep(0)
        await until(lambda: taken(fleet) >= said())
    found["rss_mib"] = round(service.memory_info().rss / 2**20)
    return found


def crowd(count: int, database: str) -> dict[str, Any]:
    """One crowd at one control room."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = ""
        if database == "postgresql":
            url = stack.enter_context(Cluster.start()).new_database()
        fleet = stack.enter_context(control_room(folder / "room", url))
        begun = time.perf_counter()
        claim = fleet.client.post("/claims", {"uses": count, "hours": 1})["claim"]
        devices = enrolled(fleet.url, claim, count, folder / "devices")
        took = time.perf_counter() - begun

        async def run() -> dict[str, Any]:
            found = await parts(fleet, devices, folder)
            await each(devices, Scripted.leave)
            return found

        return {"devices": count, "enrolled_per_s": round(count / took, 1), **asyncio.run(run())}


def table(figures: dict[str, Any]) -> str:
    """The figures as they stand on the page."""
    rows = [
        HEAD,
        "|---|---|---|---|---|---|---|---|",
    ]
    for crowd in figures["crowds"]:
        for name in PARTS:
            found = crowd[name]
            rows.append(
                f"| {crowd['devices']:,} | {name} | {found['messages']:,} | {found['service_ms']} "
                f"| {found['broker_ms']} | {found['service_written_kib']} "
                f"| {found['broker_written_kib']} | {found['messages_per_s']:.0f} |"
            )
    growth = ", ".join(f"{name} {value}" for name, value in figures["growth"].items())
    memory = ", ".join(f"{crowd['rss_mib']} MiB" for crowd in figures["crowds"])
    busy = round(60_000 * SAMPLES / figures["crowds"][-1]["telemetry"]["service_ms"], -2)
    rows += [
        "",
        f"Growth of the service's CPU for each device: {growth}. Memory: {memory}.",
        f"Devices that report once a minute and keep one processor busy: {busy:,.0f}.",
    ]
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench crowd", description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[250, 1000])
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    asked = parser.parse_args(argv)
    require("mosquitto", "mosquitto")
    crowds = [crowd(count, asked.database) for count in sorted(asked.devices)]
    few, many = crowds[0], crowds[-1]
    figures = {
        "database": asked.database,
        "growth": {
            name: round(many[name]["service_ms"] / few[name]["service_ms"], 2) for name in PARTS
        },
        "crowds": crowds,
    }
    if asked.write:
        put(PAGE, f"<!-- measured: python -m bench crowd, {asked.database} -->", table(figures))
    print(json.dumps(figures, indent=2) if asked.json else table(figures))
    return 0
