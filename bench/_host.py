"""A host in a process of its own, for benches: obeys lines on its stdin, answers each with a line.

    activate N     serve version N of the linear model; {"failed": null or words}
    pids           {"front": …, "worker": …, "restarts": …}

`python -m bench._host FOLDER ADDRESS ZYGOTE` ends, with all that it started, when stdin closes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.serving.config import ServingConfig
from tests.agent.models import linear_spec

SLOT = "digits"


async def obey(host: LocalHost, folder: Path, command: str, argument: str) -> dict[str, object]:
    if command == "activate":
        failed = await host.activate((linear_spec(folder, int(argument), slot=SLOT),))
        return {"failed": None if failed is None else f"{failed.reason}: {failed.detail}"}
    (stats,) = host.stats()
    pids = {"front": host.front_pid, "worker": host.worker_pids.get(SLOT)}
    return {**pids, "restarts": stats.restarts}


async def run(folder: Path, address: str, *, zygote: bool) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with LocalHost(
        ServingConfig(listen=(address,)), zygote=zygote, engines=("onnxruntime",)
    ) as host:
        print(json.dumps({"address": host.addresses[0]}), flush=True)
        while line := await lines.readline():
            command, _, argument = line.decode().strip().partition(" ")
            print(json.dumps(await obey(host, folder, command, argument)), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)  # that workers are killed is the bench's doing
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], zygote=sys.argv[3] == "zygote"))
