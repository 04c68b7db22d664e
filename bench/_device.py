"""A device as it is installed: `edge-agent run` with one model, enrolled at a real control room.

The control room and its broker run beside it, so that its link is up as it would be.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench._models import Net, make_bundle
from bench._tree import until
from bench._wire import Wire, get
from tests.system.site import Site, open_site

NAME = "pi-1"
_MORE = "# more\n"


@dataclass(frozen=True, slots=True)
class Device:
    """A running agent: `slot` is the model's."""

    site: Site
    slot: str

    @property
    def pid(self) -> int:
        return self.site.processes[NAME].pid

    @property
    def tcp(self) -> str:
        return f"127.0.0.1:{self.site.ports[NAME]}"

    @property
    def unix(self) -> str:
        return f"unix:{self.site.root / NAME / 'serve.sock'}"

    def is_ready(self) -> bool:
        """Whether the agent says that its model answers."""
        try:
            with Wire(self.tcp, timeout_s=5) as wire:
                return wire.ask(get(f"/v2/models/{self.slot}/ready")).status == 200
        except OSError:
            return False

    def stop(self) -> None:
        """End the agent in order."""
        self.site.stop(NAME)

    def start(self, settings: str = "") -> None:
        """Start it, with these lines more in its `agent.toml`."""
        config = self.site.root / NAME / "agent.toml"
        config.write_text(config.read_text().partition(_MORE)[0] + _MORE + settings)
        self.site.start_agent(NAME)


@contextmanager
def installed(slot: str, net: Net) -> Iterator[Device]:
    """A device that serves the model, with the settings that an installation has."""
    with tempfile.TemporaryDirectory() as name, open_site(Path(name)) as site:
        state = site.enrol(NAME)
        listen = f'listen = ["unix:serve.sock", "127.0.0.1:{site.ports[NAME]}"]'
        (state / "agent.toml").write_text(f"[serving]\n{listen}\n")
        site.start_agent(NAME)
        rollout = site.push(make_bundle(site.root / "bundles", slot, net, site.publisher))
        device = Device(site, slot)
        site.wait("the model", device.is_ready)
        site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed", 120)
        until(lambda: (state / "serve.sock").exists(), "the socket")
        yield device
        site.stop(NAME)
