"""What runs on the machine of `tests.system.memory`: a model takes more than its control group has.

    python -m tests.system.in_memory GROUP FOLDER

GROUP is a control group that is delegated to us. Prints one line of JSON: what became of everybody.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgefleet_agent.runtime.cgroups import take_over
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.serving.config import ModelConfig, ServingConfig
from tests.agent.models import asked_spec, linear_spec

ZERO: dict[str, object] = {"instances": np.zeros((1, 64)).tolist()}
BOUND_MIB = 160
TAKES_MIB = 400


def ask(address: str, slot: str, body: object) -> int:
    """The status of a prediction."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    connection.request("POST", f"/v1/models/{slot}:predict", json.dumps(body))
    status = connection.getresponse().status
    connection.close()
    return status


def killed(group: Path) -> int:
    """How many processes the kernel ended for want of memory, in this group and below."""
    events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
    return int(events["oom_kill"])


def bound_of(group: Path, pid: int) -> str:
    """What the kernel says that a worker may have."""
    (leaf,) = group.glob(f"worker-*-{pid}")
    return (leaf / "memory.max").read_text().strip()


async def story(group: Path, folder: Path) -> dict[str, Any]:
    """One slot eats, another is asked all the while."""
    groups = take_over()
    assert groups is not None
    assert groups.bounds, "the memory controller is not there"
    models = {"busy": ModelConfig(memory_mib=BOUND_MIB)}
    config = ServingConfig(listen=("127.0.0.1:0",), models=models, deadline_s=60)
    async with LocalHost(config, groups=groups) as host:
        eater = asked_spec(folder, "greedy.onnx", 10)
        failed = await host.activate((linear_spec(folder), eater))
        assert failed is None, failed
        (address,) = host.addresses
        pids = host.worker_pids
        bound = bound_of(group, pids["busy"])
        # Only the group is to hold it: what it has as a process would be refused it before.
        endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(pids["busy"], resource.RLIMIT_DATA, endless)
        asking, beside = asyncio.Event(), list[int]()

        async def others() -> None:
            while not asking.is_set():
                beside.append(await asyncio.to_thread(ask, address, "digits", ZERO))

        load = asyncio.create_task(others())
        eaten = await asyncio.to_thread(ask, address, "busy", {"instances": [[TAKES_MIB]]})
        again = await asyncio.to_thread(ask, address, "busy", {"instances": [[10]]})
        asking.set()
        await load
        stats = {found.slot: found for found in host.stats()}
        return {
            "bound": bound,
            "oom_kills": killed(group),
            "eaten": eaten,
            "again": again,
            "beside": sorted(set(beside)),
            "asked_beside": len(beside),
            "restarts": {slot: found.restarts for slot, found in sorted(stats.items())},
            "same_worker_beside": host.worker_pids["digits"] == pids["digits"],
            "agent": os.getpid(),
        }


def main(argv: list[str]) -> None:
    """See the module."""
    group = Path(argv[1])
    (group / "cgroup.procs").write_text(str(os.getpid()))
    print("FOUND " + json.dumps(asyncio.run(story(group, Path(argv[2])))), flush=True)


if __name__ == "__main__":
    main(sys.argv)
