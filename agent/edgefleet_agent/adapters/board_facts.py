"""What this board is and how it is doing while models are measured on it: read, never changed.

Temperature, clock and the firmware's throttling flags are looked up where kernels put them; what is
not there is left out, not guessed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

import psutil

from edgefleet_agent.adapters.host_metrics import capabilities, hardware_class, temperature
from edgefleet_contract import __version__
from edgefleet_contract.measuring import Board, Moment

_CPU0: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_FLAGS: Final = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_KERNEL_ARCH: Final = Path("/proc/sys/kernel/arch")
_VCGENCMD_S: Final = 5.0
_BITS: Final = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
    16: "under-voltage before",
    17: "frequency capped before",
    18: "throttled before",
    19: "soft temperature limit before",
}
"""`get_throttled` of the Raspberry Pi's firmware; the upper ones: at some time since it started."""


def board(engines: dict[str, str], *, threads: int) -> Board:
    """What this board is; `engines` and `threads` are what it would serve with."""
    able = capabilities(engines, hardware_class())
    return Board(
        hw=able.hw,
        machine=able.arch,
        model=able.board,
        os=able.os,
        kernel=platform.release(),
        python=able.python,
        agent=__version__,
        cpus=able.cpus,
        memory_mib=able.memory_bytes // 2**20,
        runtimes=engines,
        threads=threads,
        is_emulated=is_emulated(_text(_KERNEL_ARCH), platform.machine()),
    )


def moment() -> Moment:
    """How it is doing now."""
    khz = _text(_CPU0 / "scaling_cur_freq")
    return Moment(
        load1=round(psutil.getloadavg()[0], 2),
        celsius=temperature(),
        mhz=int(khz) / 1000 if khz.isdigit() else None,
        governor=_text(_CPU0 / "scaling_governor"),
        throttled=throttling(_text(_FLAGS) or _vcgencmd()),
    )


def is_emulated(kernel: str, machine: str) -> bool:
    """Whether a program for `machine` runs on a kernel for another kind of processor. Pure.

    An emulator of user programs tells them the machine that they were made for; the kernel's own
    word (Linux 6.1) is passed on as it is.
    """
    kinds = [
        next(
            (kind for kind in ("arm", "aarch64", "x86", "i686", "riscv") if word.startswith(kind)),
            word,
        )
        for word in (kernel, machine)
    ]
    ours, told = (kind.replace("aarch64", "arm").replace("i686", "x86") for kind in kinds)
    return bool(kernel) and ours != told


def throttling(flags: str) -> tuple[str, ...] | None:
    """The firmware's flags (`0x50005`, `throttled=0x0`, `50005`) in words; None if there are none.
    Pure.
    """
    try:
        bits = int(flags.rpartition("=")[2].strip(), 16)
    except ValueError:
        return None
    return tuple(words for bit, words in _BITS.items() if bits >> bit & 1)


def _vcgencmd() -> str:
    """What the firmware's own tool says; empty where there is none."""
    program = shutil.which("vcgencmd")
    if program is None:
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [program, "get_throttled"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_VCGENCMD_S,
            env={"PATH": os.environ.get("PATH", "")},
        )
        return done.stdout.strip()
    return ""


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip("\0\n ")
    return ""
