"""The board by psutil: what it is (once), and how it is doing (every interval)."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final, Protocol

import psutil

from edgefleet_agent.ports import BoardState
from edgefleet_contract.messages import Capabilities, SystemTelemetry

_HARDWARE: Final = {
    "x86_64": "x86-64",
    "amd64": "x86-64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "armhf",
    "armv6l": "armhf",
}
_SENSORS: Final = ("cpu_thermal", "coretemp", "k10temp", "soc_thermal", "acpitz")


def hardware_class() -> str:
    """The name that bundles use for this kind of processor: `arm64`, `armhf`, `x86-64`."""
    machine = platform.machine().lower()
    return _HARDWARE.get(machine, machine)


def capabilities(engines: dict[str, str], hw: str) -> Capabilities:
    """What this board is and can run."""
    return Capabilities(
        hw=hw,
        arch=platform.machine(),
        board=_board(),
        os=_os(),
        python=platform.python_version(),
        cpus=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        engines=engines,
    )


class HostMetrics:
    """Samples the board. The CPU ratio is over the time since the sample before."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._process = psutil.Process()
        psutil.cpu_percent(interval=None)  # begins the first interval

    def sample(self, device: str) -> SystemTelemetry:
        """How the board is doing now."""
        memory = psutil.virtual_memory()
        return SystemTelemetry(
            device=device,
            ts=int(time.time() * 1000),
            cpu_ratio=round(psutil.cpu_percent(interval=None) / 100, 4),
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_free_bytes=psutil.disk_usage(str(self._disk)).free,
            load1=round(psutil.getloadavg()[0], 3),
            uptime_seconds=round(time.time() - psutil.boot_time(), 1),
            agent_rss_bytes=self._process.memory_info().rss,
            temperature_celsius=temperature(),
        )


class Linked(Protocol):
    """Something that may be connected."""

    @property
    def is_connected(self) -> bool:
        """Whether it is now."""
        ...


class BoardSurroundings:
    """`ports.Surroundings` of this board. `metered` is the operator's word (agent.toml)."""

    def __init__(self, *, metered: bool) -> None:
        self._metered = metered
        self._link: Linked | None = None

    def attach(self, link: Linked) -> None:
        """Say which link is meant."""
        self._link = link

    def now(self) -> BoardState:
        """See `ports.Surroundings`; a board without a battery is on mains."""
        battery = psutil.sensors_battery()
        return BoardState(
            on_mains=None if battery is None else bool(battery.power_plugged),
            metered=self._metered,
            celsius=temperature(),
            cpu_ratio=psutil.getloadavg()[0] / (os.cpu_count() or 1),
        )

    @property
    def is_linked(self) -> bool:
        """See `ports.Surroundings`."""
        return self._link is not None and self._link.is_connected


def temperature() -> float | None:
    """Of the processor, in degrees Celsius; None where no sensor is known."""
    sensors = psutil.sensors_temperatures()
    for name in _SENSORS:
        for reading in sensors.get(name, ()):
            return float(reading.current)
    return None


def _board() -> str:
    for path in ("/sys/firmware/devicetree/base/model", "/sys/class/dmi/id/product_name"):
        try:
            return Path(path).read_text(errors="replace").strip("\0\n ") or "unknown"
        except OSError:
            continue
    return "unknown"


def _os() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.platform()
    return release.get("PRETTY_NAME", platform.platform())
