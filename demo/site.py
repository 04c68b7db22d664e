"""The demo's site: its folder, its processes, what it measured, and how it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import requests
from rich.console import Console

from demo.processes import Processes, free_port, run

FLEET = "demo"
DEVICES = {"pi-onnx": "onnxruntime", "pi-lite-1": "litert", "pi-lite-2": "litert"}


@dataclass
class Demo:
    """One run: its folder, its processes, what it measured."""

    out: Path
    console: Console
    processes: Processes
    fleet_port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    api_ports: dict[str, int] = field(default_factory=lambda: {d: free_port() for d in DEVICES})
    report: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The control room."""
        return f"http://127.0.0.1:{self.fleet_port}"

    @property
    def data(self) -> Path:
        """The control room's data directory."""
        return self.out / "fleet"

    @property
    def key(self) -> Path:
        """The publisher's private key."""
        return self.out / "publisher.pem"

    def address(self, device: str) -> str:
        """A device's prediction API."""
        return f"127.0.0.1:{self.api_ports[device]}"

    def fleet(self, *args: str | Path, ok: tuple[int, ...] = (0,)) -> tuple[int, str, str]:
        """`fleet …` against this control room."""
        return run("fleet", *args, "--url", self.url, "--data", self.data, ok=ok)

    def get(self, path: str) -> Any:
        """JSON of the REST API."""
        token = (self.data / "operator.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        answer = requests.get(f"{self.url}/api/v1{path}", headers=headers, timeout=10)
        answer.raise_for_status()
        return answer.json()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A step on the terminal: what it does while it runs, how long it took when done."""
        began = monotonic()
        with self.console.status(text):
            yield
        self.console.print(f"[green]✓[/] {text} [dim]{monotonic() - began:.1f} s[/]")

    def note(self, what: str, found: str) -> None:
        """A row of the summary."""
        self.rows.append((what, found))
