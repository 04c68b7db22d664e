"""`make powercut`: real power cuts, on a real ext4 and on a whole machine. Needs root.

(a) `calls`: an install on a loop-mounted ext4 is killed at each of its mutating system calls
    (strace), and the file system is shut down in the same moment without writing its log
    (EXT4_IOC_SHUTDOWN); then it is mounted again, and the device started.
(b) `machine`: User-Mode Linux, a real kernel with its page cache and ext4 as one process, installs
    one version after the other; the process is killed at a random moment and booted again.

Both run once more without any fsync: there, something must break. Leaves its counts for the table.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import re
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.agent.shelf import serve
from tests.crash.board import Board, make_site
from tests.crash.runs import recover
from tests.crash.table import Count, write
from tests.system.in_power import judge, pack

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "crash" / "2-powercut.json"
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
CALLS = (
    *("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "mkdir", "chmod"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"),
)
ROUNDS, CONTROL_ROUNDS, VERSIONS = 24, 6, 400
BOOT_S = 120.0


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def make_disk(image: Path, size: str) -> None:
    run("truncate", "-s", size, image)
    run("mkfs.ext4", "-q", "-F", image)


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """The state folder on a mounted image."""
    folder.mkdir(exist_ok=True)
    run("mount", "-o", "loop", image, folder)
    try:
        state = folder / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        yield state
    finally:
        run("umount", folder)


def cut(folder: Path) -> None:
    """The power goes: nothing more reaches the disk, not even what the log has."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(fd)


# --- (a) every system call -----------------------------------------------------------------------


def calls(room: Path, *, lazy: bool) -> Count:
    """An install of version 2 over 1, cut at every mutating system call."""
    points, wrong = 0, list[str]()
    base, image, folder = room / "base.img", room / "disk.img", room / "mnt"
    with serve() as shelf:
        site = make_site(shelf, room / "site")
        pack(site, shelf, room / "site.pickle")
        make_disk(base, "24M")
        with mounted(base, folder) as state:
            program = (state, room / "site.pickle", "install", *(["lazy"] if lazy else []))
            asyncio.run(_first(state, site))
        for call in CALLS:
            number, was_killed = 1, True
            while was_killed:
                run("cp", "--sparse=always", base, image)
                with mounted(image, folder) as state:
                    code, acknowledged = _strace(call, number, program)
                    was_killed = code != 0
                    cut(folder)
                with mounted(image, folder) as state:
                    found = _judge_cut(state, site, acknowledged=acknowledged)
                points += 1
                wrong += [f"{call} {number}: {word}" for word in found]
                number += 1
            print(f"  {call}: {number - 1}, {len(wrong)} bad", file=sys.stderr)
            if lazy and wrong:
                break
    for line in wrong[:20]:
        print(f"  {line}", file=sys.stderr)
    where = "ext4, every system call of an install" + (", without fsync" if lazy else "")
    return Count("power cut", where, points, len(wrong), is_control=lazy)


async def _first(state: Path, site: object) -> None:
    async with Board(state, site) as board:  # type: ignore[arg-type] # a site
        await board.follow(1)


def _strace(call: str, number: int, program: tuple[object, ...]) -> tuple[int, bool]:
    """Run the install, killed at the n-th call of a kind; its exit code, and whether it said so."""
    inject = f"inject={call}:signal=SIGKILL:when={number}"
    done = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", "/dev/null"),
            *("-e", f"trace={call}", "-e", inject),
            *(sys.executable, "-m", "tests.system.in_power", *map(str, program)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, -signal.SIGKILL, 128 + signal.SIGKILL):
        sys.exit(f"powercut: error: the install ended with {done.returncode}\n{done.stderr}")
    return done.returncode, "ACK 2" in done.stdout


def _judge_cut(state: Path, site: object, *, acknowledged: bool) -> list[str]:
    version, wrong = judge(state)
    if wrong:
        return wrong
    if version not in (1, 2) or (acknowledged and version != 2):
        return [f"version {version}, acknowledged: {acknowledged}"]
    return asyncio.run(recover(state, site, is_real=False))  # type: ignore[arg-type] # a site


# --- (b) a machine -------------------------------------------------------------------------------

INIT = """\
#!/bin/sh
mount -t proc proc /proc; mount -t tmpfs tmpfs /run
ip link set lo up 2>/dev/null || ifconfig lo up
echo 20 >/proc/sys/vm/dirty_writeback_centisecs; echo 50 >/proc/sys/vm/dirty_expire_centisecs
mount -t ext4 -o commit=1 /dev/ubda {mount} || echo "MOUNT failed"
mkdir -p -m 700 {mount}/state
cd {root}
export PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 TMPDIR=/run
{python} -m tests.system.in_power {mount}/state {site} check
{python} -m tests.system.in_power {mount}/state {site} forever shelf {flags} 2>&1
echo ENDED
"""


def machine(room: Path, *, lazy: bool, rounds: int) -> Count:
    """Installs on a machine that dies, `rounds` times."""
    image, mount, init = room / "machine.img", ROOT / "build" / "mnt", room / "init"
    mount.mkdir(parents=True, exist_ok=True)  # the machine's root is this one's, read-only
    make_disk(image, "200M")
    source = Path(__file__).with_name("uml_registers.c")
    run("cc", "-shared", "-fPIC", "-O1", "-o", room / "registers.so", source, "-ldl")
    with serve() as shelf:
        pack(make_site(shelf, room / "site", versions=VERSIONS), shelf, room / "site.pickle")
    init.write_text(
        INIT.format(
            mount=mount,
            root=ROOT,
            path=os.pathsep.join(path for path in sys.path if path),
            python=sys.executable,
            site=room / "site.pickle",
            flags="lazy" if lazy else "",
        )
    )
    init.chmod(0o755)
    dice, wrong, points, last = random.Random(1), list[str](), 0, 0
    for number in range(rounds + 1):  # the first boot only begins
        said = _boot(init, image, after=dice.uniform(0.1, 3.0))
        found = re.search(r"^CHECK (.*?)\r?$", said, re.MULTILINE)
        if found is None:
            sys.exit(f"powercut: error: the machine did not come up\n{said[-2000:]}")
        version, bad = json.loads(found[1])
        if number:
            points += 1
            lost = [] if bad or (version or 0) >= last else [f"{last} was acknowledged"]
            wrong += [f"round {number}: version {version}: {word}" for word in (*bad, *lost)]
        died = [] if "Traceback" not in said else [f"round {number}: the agent dies"]
        wrong += died
        acks = [int(n) for n in re.findall(r"^ACK (\d+)\r?$", said, re.MULTILINE)]
        last = max([version or 0, *acks])
        print(f"  round {number}: found {version}, acknowledged {last}, {len(wrong)} bad",
              file=sys.stderr)  # fmt: skip
        if lazy and wrong:
            break
    for line in wrong[:20]:
        print(f"  {line}", file=sys.stderr)
    where = "a machine (User-Mode Linux) at random moments" + (", without fsync" if lazy else "")
    return Count("power cut", where, points, len(wrong), is_control=lazy)


def _boot(init: Path, image: Path, *, after: float) -> str:
    """Boot, and kill the machine so many seconds after its first acknowledgement; what it said."""
    process = subprocess.Popen(
        [
            *("linux.uml", "mem=256M", f"ubd0={image}", "root=/dev/root", "rootfstype=hostfs"),
            *("rootflags=/", "ro", "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet"),
            f"init={init}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "LD_PRELOAD": str(image.with_name("registers.so"))},
    )
    assert process.stdout is not None
    said, end = b"", time.monotonic() + BOOT_S
    waiting = selectors.DefaultSelector()
    waiting.register(process.stdout, selectors.EVENT_READ)
    acknowledged = False
    while (left := end - time.monotonic()) > 0:
        if not waiting.select(left):
            break
        block = os.read(process.stdout.fileno(), 65_536)
        said += block
        if not block or b"ENDED" in said:
            break
        if not acknowledged and b"ACK" in said:
            acknowledged, end = True, time.monotonic() + after
    os.killpg(process.pid, signal.SIGKILL)
    said += process.stdout.read() or b""
    process.wait()
    process.stdout.close()
    waiting.close()
    return said.decode(errors="replace")


def main(argv: list[str]) -> int:
    """See the module."""
    if os.geteuid():
        sys.exit("powercut: error: this mounts and shuts down a file system: run it as root")
    missing = [
        name for name in ("strace", "mkfs.ext4", "linux.uml", "cc") if not shutil.which(name)
    ]
    if missing:
        sys.exit(f"powercut: error: {missing[0]} is missing: make powercut installs it")
    rows = []
    for what in argv or ["calls", "machine"]:
        for lazy in (False, True):
            rounds = CONTROL_ROUNDS if lazy else ROUNDS
            with tempfile.TemporaryDirectory(prefix="edgefleet-powercut-") as room:
                row = (
                    calls(Path(room), lazy=lazy)
                    if what == "calls"
                    else machine(Path(room), lazy=lazy, rounds=rounds)
                )
            print(f"{row.fault}: {row.where}: {row.points} points, {row.violations} bad")
            rows.append(row)
    write(OUT if not argv else OUT.with_name(f"2-{argv[0]}.json"), rows)
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
