"""The board by psutil: what it is (once), and how it is doing (every interval)."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final, Protocol

import psutil

from edgefleet_agent.ports import BoardState
from edgefleet_contract.boards import class_of
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.telemetry import SystemTelemetry

_HARDWARE: Final = {
    "x86_64": "x86-64",
    "amd64": "x86-64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "armhf",
    "armv6l": "armhf",
}
CPUINFO: Final = Path("/proc/cpuinfo")
_CPU_NAMES: Final = ("model name", "cpu model")
_ARM_PARTS: Final = {
    ("0x41", "0xb76"): "ARM1176",
    ("0x41", "0xc07"): "Cortex-A7",
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
}
"""MIDR numbers of the processors of Raspberry Pis and their like."""
_FEATURES: Final = frozenset(
    {
        *("neon", "vfpv4", "asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2"),
        *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16"),
        *("avx_vnni", "amx_int8", "amx_bf16"),
    }
)
_SENSORS: Final = ("cpu_thermal", "coretemp", "k10temp", "soc_thermal", "acpitz")


def hardware_class() -> str:
    """The name that bundles use for this kind of processor: `arm64`, `armhf`, `x86-64`."""
    machine = platform.machine().lower()
    return _HARDWARE.get(machine, machine)


def capabilities(
    engines: dict[str, str],
    hw: str,
    *,
    state: Path | None = None,
    accelerators: tuple[str, ...] = (),
) -> Capabilities:
    """What this board is and can run; `state` is the folder whose disk counts."""
    board = _board()
    cpu, features = read_cpu()
    return Capabilities(
        hw=hw,
        arch=platform.machine(),
        board=board,
        hardware_class=class_of(board, hw),
        cpu=cpu,
        features=features,
        disk_bytes=psutil.disk_usage(str(state)).total if state is not None else 0,
        kernel=platform.release()[:128],
        accelerators=accelerators,
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


def read_cpu(path: Path = CPUINFO) -> tuple[str, tuple[str, ...]]:
    """The model of the processor, and those of its features that models make use of, by name."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return "", ()
    told: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        told.setdefault(key.strip().lower(), value.strip())
    name = next((told[key] for key in _CPU_NAMES if told.get(key)), "")
    if not name and told.get("cpu part"):  # arm64 says numbers: (implementer, part)
        part = (told.get("cpu implementer", "").lower(), told["cpu part"].lower())
        name = _ARM_PARTS.get(part, f"ARM {part[0]} {part[1]}")
    words = f"{told.get('flags', '')} {told.get('features', '')}".lower().split()
    return name.replace("\0", "")[:128], tuple(sorted(_FEATURES.intersection(words)))


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
