"""The real program, run, killed and asked from outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet import ceremony
from edgefleet_fleet.client import Client
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.push import read_bundle, upload
from tests.fleet.stage import FLEET
from tests.ports import free_port as free_port


@dataclass
class Fleet:
    """The real program `fleet serve`, which can be killed and started again."""

    data: Path
    http_port: int
    mqtt_port: int
    process: subprocess.Popen[str] | None = None
    environ: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "edgefleet_fleet")
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
        self.launch()
        line = self.first_words()
        assert line.startswith("http"), self.log.read_text()
        return line

    def launch(self) -> None:
        """Start it, and do not wait until it is ready."""
        command = [sys.executable, *self.program, "serve", "--data", str(self.data)]
        command += ["--name", FLEET, "--listen", f"127.0.0.1:{self.http_port}"]
        command += ["--mqtt-port", str(self.mqtt_port)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **self.environ},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def first_words(self) -> str:
        """What it prints first: its address once it is ready, nothing where it ends before."""
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

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

    @property
    def key(self) -> Path:
        """The publisher's key file."""
        return self.data.with_name("publisher.pem")

    def trust(self, publisher: PrivateKey) -> None:
        """Hold the root ceremony, with this publisher, once."""
        if self.client.get("/trust/identity")["has_root"]:
            return
        publisher.save(self.key)
        offline = self.data.with_name("offline")
        made = self.run("keys", "init", "--out", offline, "--publisher", self.key)
        assert made.returncode == 0, made.stderr

    def push(self, folder: Path, **wish: object) -> str:
        """Upload a bundle, release it and roll it out; the rollout's id."""
        bundle = read_bundle(folder)
        upload(self.client, bundle, check=True, progress=lambda *_: None)
        trust, key = self.client.get("/trust"), PrivateKey.load(self.key)
        named = (bundle.manifest.model, bundle.manifest.version)
        release = ceremony.release(trust, key, *named, bundle.manifest_bytes)
        self.client.post("/trust/targets", release)
        names = {"bundle": bundle.digest, "signature_sha256": bundle.signature_sha256}
        return str(self.client.post("/rollouts", {**names, **wish})["id"])

    def broker_pid(self) -> int:
        """The broker's process."""
        command = ["pgrep", "-f", f"mosquitto -c {self.data}/"]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(found.stdout.split()[0])

    def is_online(self, device: str) -> bool:
        """Whether the fleet sees a device."""
        return bool(self.client.get(f"/devices/{device}")["online"])

    def health(self) -> int:
        """The status of `/healthz`."""
        return requests.get(f"{self.url}/healthz", timeout=5).status_code


def until(what: Callable[[], object], timeout: float = 15) -> None:
    """Wait for an event of another process, which can only be asked about."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


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
