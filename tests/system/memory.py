"""`make memory`: a worker that takes more than its control group has is ended alone, for real.

Boots User-Mode Linux, a real kernel as one process: control groups of version 2 with the memory
controller, 512 MiB, and this machine's files, read-only. Needs root.

(a) The real agent serves two models with the real runtime; one is asked for what takes 400 MiB,
    with 160 allowed (`in_memory.py`).
(b) systemd starts `edge-agent.service`, all its hardening in place, with a program that takes over
    its control group as the agent does, and tries to write beside it (`in_unit.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from tests.system.in_unit import BOUND

ROOT = Path(__file__).parents[2]
BOOT_S = 300
INIT = """\
#!/bin/sh
mount -t proc proc /proc; mount -t tmpfs tmpfs /run; mount -t sysfs sysfs /sys
ip link set lo up 2>/dev/null || ifconfig lo up
mkdir /run/tmp /run/models /run/cgroup
mount -t cgroup2 cgroup2 /run/cgroup
echo +memory >/run/cgroup/cgroup.subtree_control
mkdir /run/cgroup/edge-agent.service
cd {root}
export PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 TMPDIR=/run/tmp HOME=/run/tmp
{python} -c 'import os; os.setxattr("/run/cgroup/edge-agent.service", "user.delegate", b"1")'
{python} -m tests.system.in_memory /run/cgroup/edge-agent.service /run/models 2>&1
dmesg | grep -i -E "out of memory|oom-kill" | tail -4
echo ENDED
{python} -c 'import ctypes, os; os.sync(); ctypes.CDLL(None).reboot(0x4321FEDC)'
"""


UNIT_INIT = """\
#!/bin/sh
mount -t proc proc /proc; mount -t tmpfs tmpfs /run; mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /var/lib; mount -t tmpfs tmpfs /var/tmp
mkdir -p /run/systemd/system /run/code
cp -r {psutil} {root}/contract/edgefleet_contract {root}/agent/edgefleet_agent /run/code/
cp {root}/tests/system/in_unit.py /run/code/
chmod -R a+rX /run/code
cp {room}/*.service {room}/*.target /run/systemd/system/
mount -t tmpfs tmpfs /tmp
exec /lib/systemd/systemd --unit=probe.target
"""
TARGET = "[Unit]\nRequires=edge-agent.service\nWants=off.service\n"
OFF = """\
[Unit]
After=edge-agent.service
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/console
ExecStart=/usr/bin/journalctl --sync
ExecStart=/bin/sh -c "journalctl -u edge-agent --no-pager -o cat; systemctl poweroff -ff"
"""


def unit_init(room: Path) -> str:
    """The first program of a machine that starts the agent's unit, with the probe for an agent."""
    unit = (ROOT / "systemd" / "edge-agent.service").read_text()
    probe = "/usr/bin/python3 /run/code/in_unit.py\nEnvironment=PYTHONPATH=/run/code"
    unit = unit.replace("/opt/edgefleet/bin/edge-agent run", probe)
    unit = unit.replace("Restart=always", "Restart=no")
    files = {"edge-agent.service": unit, "off.service": OFF, "probe.target": TARGET}
    for name, text in files.items():
        (room / name).write_text(text)
    return UNIT_INIT.format(psutil=Path(psutil.__file__).parent, root=ROOT, room=room)


def worker_init() -> str:
    """The first program of a machine that runs the real agent's host."""
    path = os.pathsep.join(path for path in sys.path if path)
    return INIT.format(root=ROOT, path=path, python=sys.executable)


def boot(room: Path, text: str) -> str:
    """What the machine said until it was switched off."""
    init = room / "init"
    init.write_text(text)
    init.chmod(0o755)
    source, registers = Path(__file__).with_name("uml_registers.c"), room / "registers.so"
    compiler = ["cc", "-shared", "-fPIC", "-O1", "-o", str(registers), str(source), "-ldl"]
    subprocess.run(compiler, check=True, capture_output=True)
    done = subprocess.run(
        [
            *("linux.uml", "mem=512M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
            *("con=null", "con0=fd:0,fd:1", "ssl=null", "quiet", f"init={init}"),
            "systemd.unified_cgroup_hierarchy=1",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LD_PRELOAD": str(registers)},
        timeout=BOOT_S,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def wrong(found: dict[str, Any]) -> list[str]:
    """What is not as it must be."""
    expected = {
        "bound": str(160 * 1024 * 1024),
        "eaten": 500,
        "again": 200,
        "beside": [200],
        "same_worker_beside": True,
    }
    words = [f"{key} is {found[key]}" for key, value in expected.items() if found[key] != value]
    # The second worker, to which the request is sent before it is given up, has the limit of a
    # process as well, which the first was relieved of: it refuses.
    if not found["oom_kills"] or found["restarts"] != {"busy": 1, "digits": 0}:
        words.append(f"{found['oom_kills']} ended by the kernel, restarts {found['restarts']}")
    return words


def wrong_in_unit(found: dict[str, Any]) -> list[str]:
    """The same of the unit."""
    group = "/system.slice/edge-agent.service"
    expected = {
        "bounds": True,
        "place": f"0::{group}/worker-digits-digits@1-PID",
        "bound": BOUND,
        "left": ["agent"],
        "beside": "Read-only file system",
    }
    words = [f"{key} is {found.get(key)}" for key, value in expected.items()
             if found.get(key) != value]  # fmt: skip
    return words if found["uid"] else [*words, "the unit runs as root"]


def heard(word: str, said: str) -> dict[str, Any]:
    """What the machine told in a line that begins with a word."""
    line = re.search(rf"^{word} (.*?)\r?$", said, re.MULTILINE)
    if line is None:
        sys.exit(f"memory: error: the machine did not say what it found\n{said[-3000:]}")
    found: dict[str, Any] = json.loads(line[1])
    print(json.dumps(found, indent=1))
    return found


def main() -> int:
    """See the module."""
    if os.geteuid():
        sys.exit("memory: error: this boots a machine on this one's files: run it as root")
    for name in ("linux.uml", "cc", "/lib/systemd/systemd"):
        if not shutil.which(name):
            sys.exit(f"memory: error: {name} is missing: make memory installs it")
    with tempfile.TemporaryDirectory(prefix="edgefleet-memory-") as room:
        said = boot(Path(room), worker_init())
        bad = wrong(heard("FOUND", said))
        for text in re.findall(r"^.*oom-kill.*?\r?$", said, re.MULTILINE):
            print(text.strip())
        bad += wrong_in_unit(heard("UNIT", boot(Path(room), unit_init(Path(room)))))
    for word in bad:
        print(f"memory: {word}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
