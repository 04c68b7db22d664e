"""Nothing is said to anybody, and nothing is written: every system call of a host is looked at.

onnxruntime sends telemetry unless told not to, and keeps a device id and a queue below
`~/.cache/Microsoft`. What is traced here is all of the host's processes through a trial, a worker,
a swap and a shut-down.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
STRACE = shutil.which("strace")

HOST = """
import asyncio, sys
from pathlib import Path
from edgefleet_agent.client import AsyncClient
from edgefleet_agent.ports import TrialReport
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.serving.config import ServingConfig
from tests.agent.models import linear_spec, pixels

async def main(folder):
    serving = ServingConfig(listen=(f"unix:{folder}/serve.sock", "127.0.0.1:0"), run_dir=folder)
    async with LocalHost(serving, zygote=ZYGOTE) as host:
        async with AsyncClient(f"unix:{folder}/serve.sock") as client:
            for version in (1, 2):
                spec = linear_spec(Path(folder) / "store", version)
                assert isinstance(await host.trial(spec, timeout_s=60), TrialReport)
                assert await host.activate((spec,)) is None
                await client.infer("digits", {"x": pixels(2)})

asyncio.run(main(sys.argv[1]))
"""

LOUD = """
import sys
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def trace(folder: Path, program: str, argument: str) -> list[str]:
    """What a program and its children do to the network and to folders, a system call a line."""
    if STRACE is None:
        pytest.skip("no strace here: apt-get install strace")
    home, log = folder / "home", folder / "trace"
    home.mkdir()
    environ = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    calls = "trace=socket,connect,bind,sendto,sendmsg,open,openat,creat,mkdir,mkdirat,rename"
    done = subprocess.run(
        [
            *(STRACE, "-f", "-qq", "-e", calls, "-e", "signal=none", "-o", log),
            *(sys.executable, "-c", program, argument),
        ],
        cwd=ROOT,
        env=environ | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr and not log.stat().st_size:
        pytest.skip("tracing is not allowed here")
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines()


def families(calls: list[str]) -> list[str]:
    return [found[1] for call in calls if (found := re.search(r"socket\((AF_\w+)", call))]


def written(calls: list[str]) -> list[str]:
    """The paths that were opened to be written or made, but for devices and pipes."""
    found = []
    for call in calls:
        made = re.search(r'(?:open|openat|creat|mkdir|mkdirat|rename)\([^"]*"([^"]*)"(.*)', call)
        makes = made and re.search(r"O_WRONLY|O_RDWR|O_CREAT|creat\(|mkdir|rename", call)
        if made and makes and "= -1" not in made[2] and not made[1].startswith(("/dev/", "/proc/")):
            found.append(made[1])
    return found


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_a_host_says_nothing_to_anybody_and_writes_nothing_of_its_own(
    tmp_path: Path, zygote: bool
) -> None:
    calls = trace(tmp_path, HOST.replace("ZYGOTE", repr(zygote)), str(tmp_path))
    assert len({call.split()[0] for call in calls}) > 5  # agent, front, trials, workers
    assert sum("linear" in call and "openat" in call for call in calls) >= 4  # they were traced
    sockets = families(calls)
    assert sockets.count("AF_UNIX") > 2
    assert [family for family in sockets if family != "AF_UNIX"] == ["AF_INET"]  # the listener
    bound = [call for call in calls if "bind(" in call and "AF_UNIX" not in call]
    assert len(bound) == 1
    assert 'inet_addr("127.0.0.1")' in bound[0]
    said = [call for call in calls if re.search(r"(connect|sendto|sendmsg)\(.*AF_INET", call)]
    assert said == []
    assert list((tmp_path / "home").rglob("*")) == []
    outside = [path for path in written(calls) if not path.startswith(str(tmp_path))]
    assert outside == []
    assert [path for path in written(calls) if "Microsoft" in path] == []


def test_the_runtime_left_alone_would_be_seen(tmp_path: Path) -> None:
    """The search above finds what is there."""
    model = ROOT / "tests" / "vectors" / "models" / "linear1.onnx"
    calls = trace(tmp_path, LOUD, str(model))
    if not list((tmp_path / "home").rglob("Microsoft")):
        pytest.skip("this build of onnxruntime has no telemetry")
    assert [path for path in written(calls) if "/home/.cache/Microsoft" in path]
