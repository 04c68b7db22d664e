"""A device that brings version 2, with version 1 serving, and dies by itself where it is told to.

python -m tests.agent.bringer FOLDER URL [fetching|applying]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.device import Installed
from edgefleet_agent.ports import Choice
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract.keys import KeyRing, PrivateKey
from tests.contract.makers import target_of

SUFFIX = {"fetching": ".delta", "applying": ".part", "": "nothing"}


class Mortal(FileSystem):
    """Dies at the second write to a file of this kind."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix

    def write_at(self, file: BinaryIO, offset: int, data: bytes) -> None:
        if offset and str(Path(f"/proc/self/fd/{file.fileno()}").readlink()).endswith(self._suffix):
            os.kill(os.getpid(), signal.SIGKILL)
        super().write_at(file, offset, data)


def device(folder: Path, fs: FileSystem | None = None) -> tuple[Bundles, Store]:
    """A device whose publisher's key is `folder/key.pem`."""
    store = Store(folder / "store", fs)
    ring = KeyRing([PrivateKey.load(folder / "key.pem").public])
    made = Bundles(
        store=store,
        fetcher=Mover(store, [HttpChunks(block_s=5)]),
        publishers=lambda: ring,
        choose=lambda manifest: Choice(manifest.variants[0], "onnxruntime"),
        hw="arm64",
    )
    return made, store


def main() -> None:
    folder, url, stage = Path(sys.argv[1]), sys.argv[2], (*sys.argv[3:], "")[0]
    made, _ = device(folder, Mortal(SUFFIX[stage]))
    serving = Installed(target_of(folder / "digits-1"), "v", "onnxruntime", "")
    two = target_of(folder / "digits-2")
    made.bring(two, (url,), lambda *_: None, serving=(serving,))


if __name__ == "__main__":
    main()
