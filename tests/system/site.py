"""A site for tests: a real control room and real agents as processes, on free ports."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests

from edgefleet_contract.keys import PrivateKey
from tests.agent.models import pixels
from tests.ports import free_port as free_port

T = TypeVar("T")
BIN = Path(sys.executable).parent


def require_mosquitto() -> None:
    """Fail in CI, skip elsewhere, where there is no broker."""
    if shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists():
        return
    if os.environ.get("CI"):
        pytest.fail("mosquitto is not installed: make broker")
    pytest.skip("mosquitto is not installed: sudo apt-get install mosquitto")


@dataclass
class Site:
    """One control room and its devices."""

    root: Path
    http_port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    publisher: PrivateKey = field(default_factory=PrivateKey.generate_p256)
    is_tls: bool = True

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://127.0.0.1:{self.http_port}"

    @property
    def ca(self) -> Path:
        return self.data / "keys" / "ca.pem"

    @property
    def key(self) -> Path:
        return self.root / "publisher.pem"

    @property
    def data(self) -> Path:
        return self.root / "fleet"

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text(errors="replace")

    def run(self, *command: str | Path, ok: tuple[int, ...] = (0,), stdin: str = "") -> str:
        done = subprocess.run(
            [BIN / command[0], *command[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in ok, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if done.returncode == 0 else done.stderr

    def fleet(self, *args: str | Path, ok: tuple[int, ...] = (0,)) -> str:
        return self.run("fleet", *args, "--url", self.url, "--data", self.data, ok=ok)

    def read(self, path: str) -> requests.Response:
        """What the operator gets at a path of the control room."""
        token = (self.data / "operator.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return requests.get(self.url + path, headers=headers, timeout=10, verify=str(self.ca))

    def get(self, path: str) -> Any:
        answer = self.read(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def start(self, name: str, *command: str | Path) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [BIN / command[0], *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_fleet(self) -> None:
        listen = f"127.0.0.1:{self.http_port}"
        self.start(
            "fleet",
            *("fleet", "serve", "--data", self.data, "--name", "demo"),
            *("--listen", listen, "--mqtt-port", str(self.mqtt_port)),
            *(("--tls", "own") if self.is_tls else ()),
        )
        self.wait("the fleet", self.is_fleet_up)

    def is_fleet_up(self) -> bool:
        try:
            answer = requests.get(f"{self.url}/healthz", timeout=2, verify=str(self.ca))
        except (requests.RequestException, OSError):  # no answer, or no authority yet
            return False
        return answer.status_code == 200

    def trust_publisher(self) -> None:
        self.publisher.save(self.key)
        self.fleet("keys", "init", "--out", self.root / "offline", "--publisher", self.key)

    def enrol(self, device: str) -> Path:
        claim = self.fleet("devices", "claim")
        state = self.root / device
        state.mkdir(exist_ok=True)
        self.ports[device] = free_port()
        (state / "agent.toml").write_text(
            f'[serving]\nlisten = ["unix:serve.sock", "127.0.0.1:{self.ports[device]}"]\n'
            "[telemetry]\ninterval_s = 1.0\n[mqtt]\nwill_delay_s = 1\n"
        )
        self.run(
            "edge-agent",
            *("enrol", "--state", state, "--fleet", self.url),
            *("--claim-file", "-", "--device", device),
            stdin=claim,
        )
        return state

    def start_agent(self, device: str) -> None:
        self.start(device, "edge-agent", "run", "--state", self.root / device)

    def push(self, bundle: Path, *flags: str | Path) -> str:
        out = self.fleet("push-model", bundle, "--json", "--key", self.key, *flags)
        rollout: str = json.loads(out)["id"]
        return rollout

    def rollout_state(self, rollout: str) -> str:
        state: str = self.get(f"/rollouts/{rollout}")["state"]
        return state

    def ask(self, device: str, slot: str = "digits") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[device], timeout=30)
        try:
            body = json.dumps({"instances": pixels(1).tolist()})
            connection.request("POST", f"/v1/models/{slot}:predict", body)
            response = connection.getresponse()
            value = json.loads(response.read())
        finally:
            connection.close()
        return response.status, value

    def version(self, device: str) -> int | None:
        """What the device's API says that it serves; None where nothing is, or nobody answers."""
        try:
            answer = requests.get(
                f"http://127.0.0.1:{self.ports[device]}/v1/models/digits", timeout=5
            )
        except requests.RequestException:
            return None
        if answer.status_code != 200:
            return None
        return int(answer.json()["model_version_status"][0]["version"])

    def wait(self, what: str, probe: Callable[[], T | None], seconds: float = 60) -> T:
        """The first thing that `probe` gives; polls, since what it waits for is elsewhere."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = probe()
            if found:
                return found
            time.sleep(0.05)
        logs = "\n".join(f"--- {name}\n{self.log(name)[-2000:]}" for name in self.processes)
        raise AssertionError(f"{what}: not within {seconds:.0f} s\n{logs}")

    def kill(self, name: str) -> None:
        """As a power cut would: the process and all that it started, at once."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(30)

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)


@contextmanager
def open_site(root: Path, *, is_tls: bool = True) -> Iterator[Site]:
    """A site whose control room is up and trusts the test's publisher."""
    require_mosquitto()
    site = Site(root, is_tls=is_tls)
    try:
        site.start_fleet()
        site.trust_publisher()
        yield site
    finally:
        site.close()
