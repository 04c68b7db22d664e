"""A process that fetches one blob as an agent does, to be killed: prints what it has, then moves.

python -m tests.system.puller STATE STORE SHA256 SIZE TABLE_SHA256 WAY [SOURCE…]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from edgefleet_agent import identity as identities
from edgefleet_agent.adapters.mqtt_chunks import MqttChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.config import TransferConfig
from edgefleet_agent.daemon import mover
from edgefleet_contract.bundle import Digest
from tests.system.in_band import linked


def main() -> None:
    state, place, digest, size, table, way, *sources = sys.argv[1:]
    identity, store = identities.load(Path(state)), Store(Path(place))
    in_band = MqttChunks(identity.enrolment.device)
    moving = mover(store, Path(state), TransferConfig(order=(way,)), in_band, Tls.of(identity))

    def progress(done: int) -> None:
        print(done, flush=True)
        time.sleep(0.002)  # a board is slower

    with linked(identity, in_band):
        moving.fetch_file(
            Digest(digest),
            size=int(size),
            chunk_list_sha256=Digest(table),
            sources=tuple(sources),
            what="blob",
            progress=progress,
        )
    print(json.dumps(moving.take_moved().ways), flush=True)


if __name__ == "__main__":
    main()
