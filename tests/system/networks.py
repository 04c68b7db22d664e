"""`make networks`: a rollout to its end over each of the bad networks that devices live on.

A real control room and broker in one network namespace, a real agent in another, and one device
that lives through all of it. Ends with a table: what the link carried to the device, over the
bytes of the bundle. Exit code 1 where a rollout did not complete.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import psutil
from onnx import TensorProto, helper

from tests.agent.bundles import make_bundle
from tests.agent.models import HERE
from tests.system.network import FAIR, FLEET, Link, Namespace, Weather
from tests.system.site import Site, require_mosquitto

PI = "pi-1"
MEGABYTE = 1_000_000


@dataclass
class FarSite(Site):
    """A site whose devices are at the other end of a link; this thread is at the fleet's."""

    link: Link = field(kw_only=True)
    versions: int = 0

    @property
    def url(self) -> str:
        return f"http://{FLEET}:{self.http_port}"

    def run(self, *command: str | Path, ok: tuple[int, ...] = (0,), stdin: str = "") -> str:
        with self._side_of(command[0]):
            return super().run(*command, ok=ok, stdin=stdin)

    def start(self, name: str, *command: str | Path) -> None:
        with self._side_of(command[0]):
            super().start(name, *command)

    def _side_of(self, program: str | Path) -> Any:
        return self.link.device.entered() if program == "edge-agent" else nullcontext()

    def start_fleet(self) -> None:
        config = self.root / "fleet.toml"
        config.write_text(
            f'name = "demo"\nlisten = "{FLEET}:{self.http_port}"\n'
            f'mqtt_listen = "{FLEET}"\nmqtt_port = {self.mqtt_port}\n'
        )
        self.start("fleet", "fleet", "serve", "--data", self.data, "--config", config)
        self.wait("the fleet", self.is_fleet_up)

    def next_bundle(self, size: int) -> Path:
        """A bundle of about so many bytes, of a version and with a model that nobody has yet."""
        self.versions += 1
        return make_bundle(
            self.root / "bundles",
            self.versions,
            key=self.publisher,
            raw=padded_model(self.versions, size),
        )

    def blob(self, bundle: Path) -> Path:
        """Where the shelf has the model of a bundle."""
        files = json.loads((bundle / "bundle.json").read_text())["files"]
        digest = next(entry["sha256"] for entry in files if entry["role"] == "model")
        return next(path for path in self.data.rglob(digest) if path.is_file())

    def break_broker(self) -> None:
        """`kill -9`; the fleet starts another one."""
        service = psutil.Process(self.processes["fleet"].pid)
        broker = next(child for child in service.children() if child.name() == "mosquitto")
        broker.kill()


def padded_model(version: int, size: int) -> bytes:
    """linear1 or linear2 (odd or even), with random bytes that nothing uses."""
    model = onnx.load(HERE / f"linear{1 + (version + 1) % 2}.onnx")
    padding = helper.make_tensor("padding", TensorProto.UINT8, [size], os.urandom(size), raw=True)
    model.graph.initializer.append(padding)
    raw: bytes = model.SerializeToString()
    return raw


@contextmanager
def open_far_site(root: Path, *, keepalive_s: int = 30) -> Iterator[FarSite]:
    """Everything up and enrolled in fair weather, version 1 installed."""
    require_mosquitto()
    with Namespace() as fleet, Namespace() as device, fleet.entered(), Link(fleet, device) as link:
        site = FarSite(root, link=link)
        try:
            site.start_fleet()
            site.trust_publisher()
            config = site.enrol(PI) / "agent.toml"
            text = config.read_text()
            config.write_text(text.replace("[mqtt]", f"[mqtt]\nkeepalive_s = {keepalive_s}"))
            site.start_agent(PI)
            first = Scenario("fair weather", FAIR, 100_000)
            outcome = first.run(site)
            assert outcome.completed, outcome
            yield site
        finally:
            site.close()


@dataclass(frozen=True)
class Outcome:
    """How a rollout went: seconds, and bytes on the link to the device over the bundle's."""

    name: str
    completed: bool
    seconds: float
    ratio: float
    bundle_bytes: int
    why_not: str = ""


@dataclass(frozen=True)
class Scenario:
    """A rollout of a bundle of `size` bytes in some weather, while `trouble` happens."""

    name: str
    weather: Weather
    size: int = 2 * MEGABYTE
    limit_s: float = 240.0
    trouble: Callable[[FarSite, Path], None] = lambda site, bundle: None

    def run(self, site: FarSite) -> Outcome:
        bundle = site.next_bundle(self.size)
        ideal = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
        link = site.link
        link.weather = self.weather
        carried, begun = link.to_device_bytes, time.monotonic()
        try:
            rollout = site.push(bundle)
            self.trouble(site, bundle)
            left = self.limit_s - (time.monotonic() - begun)
            site.wait(self.name, lambda: ended(site, rollout), seconds=max(1.0, left))
        except AssertionError as error:
            why_not = str(error).splitlines()[0]
        else:
            state = site.rollout_state(rollout)
            why_not = "" if state == "completed" else f"{state}: {reasons(site, rollout)}"
        seconds = time.monotonic() - begun
        link.weather = FAIR
        ratio = (link.to_device_bytes - carried) / ideal
        return Outcome(self.name, not why_not, seconds, ratio, ideal, why_not)


def spoken(site: FarSite) -> str:
    """The ends of all logs."""
    return "\n".join(f"--- {name}\n{site.log(name)[-3000:]}" for name in site.processes)


def ended(site: FarSite, rollout: str) -> bool:
    return site.rollout_state(rollout) not in ("scheduled", "running")


def reasons(site: FarSite, rollout: str) -> Any:
    return site.get(f"/rollouts/{rollout}")["by_reason"]


def carried(site: FarSite, size: int) -> None:
    """Wait until the link carried so many more bytes to the device."""
    goal = site.link.to_device_bytes + size
    site.wait(f"{size} bytes", lambda: site.link.to_device_bytes >= goal, seconds=120)


def broker_dies(site: FarSite, bundle: Path) -> None:
    carried(site, 500_000)
    site.break_broker()


def goes_silent(site: FarSite, bundle: Path) -> None:
    """Nothing arrives for a while, and nobody is told: no RST, no FIN, no ICMP."""
    carried(site, 500_000)
    before = site.link.weather
    site.link.weather = replace(before, is_cut=True)
    time.sleep(25)  # longer than a read may take
    site.link.weather = before


def router_forgets(site: FarSite, bundle: Path) -> None:
    carried(site, 500_000)
    site.link.forget()


def not_there_yet(site: FarSite, bundle: Path) -> None:
    """The shelf answers 404 for a while, as a mirror that lags behind."""
    blob = site.blob(bundle)
    away = blob.rename(site.root / "away")
    site.link.weather = FAIR
    log = len(site.log(PI))
    site.wait("a 404", lambda: "does not have" in site.log(PI)[log:])
    away.rename(blob)


def http_is_blocked(site: FarSite, bundle: Path) -> None:
    site.link.weather = replace(FAIR, blocked=frozenset({site.http_port}))


def slow_and_in_band(site: FarSite, bundle: Path) -> None:
    site.link.weather = replace(SLOWEST, blocked=frozenset({site.http_port}))


SLOW = Weather(delay_s=0.02, rate=1_000_000)
SLOWEST = Weather(delay_s=0.05, rate=64_000)
CUT = replace(FAIR, is_cut=True)
SCENARIOS = (
    Scenario("fair weather", FAIR),
    Scenario("loss 5 %", Weather(delay_s=0.01, loss=0.05)),
    Scenario("loss 15 %", Weather(delay_s=0.01, loss=0.15), MEGABYTE),
    Scenario("loss 30 %", Weather(delay_s=0.01, loss=0.30), MEGABYTE // 5, limit_s=600),
    Scenario("2 s round trip", Weather(delay_s=0.9, jitter_s=0.2)),
    Scenario("1 Mbit/s", SLOW),
    Scenario("64 kbit/s", SLOWEST, MEGABYTE // 5),
    Scenario("64 kbit/s, HTTP blocked", CUT, MEGABYTE // 5, trouble=slow_and_in_band),
    Scenario("duplicates 20 %", Weather(delay_s=0.01, duplicate=0.2)),
    Scenario("reordering 20 %", Weather(delay_s=0.01, reorder=0.2)),
    Scenario("corruption 5 %", Weather(delay_s=0.01, corrupt=0.05)),
    Scenario("flapping, 3 s up, 3 s down", replace(SLOW, rate=2_000_000, up_s=3, down_s=3)),
    Scenario("broker dies in mid transfer", SLOW, trouble=broker_dies),
    Scenario("silent for 25 s", SLOW, trouble=goes_silent),
    Scenario("router forgets connections", SLOW, trouble=router_forgets),
    Scenario("404 for a while", CUT, MEGABYTE, trouble=not_there_yet),
    Scenario("HTTP blocked, MQTT open", CUT, MEGABYTE // 5, 120, trouble=http_is_blocked),
)


def main(names: list[str]) -> int:
    """Run all scenarios, or those whose names contain one of the given words."""
    chosen = [s for s in SCENARIOS if not names or any(word in s.name for word in names)]
    outcomes: list[Outcome] = []
    row = "{:<28} {:>9} {:>8} {:>11} {:>12}"
    with tempfile.TemporaryDirectory() as folder, open_far_site(Path(folder)) as site:
        print(row.format("network", "completed", "seconds", "bytes/ideal", "bundle bytes"))
        for scenario in chosen:
            found = scenario.run(site)
            outcomes.append(found)
            print(
                row.format(
                    found.name,
                    "yes" if found.completed else "NO",
                    f"{found.seconds:.1f}",
                    f"{found.ratio:.3f}",
                    found.bundle_bytes,
                ),
                found.why_not,
                flush=True,
            )
    return 0 if all(found.completed for found in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
