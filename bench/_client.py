"""A client in a process of its own: asks without a pause on one connection, checks every answer.

    python -m bench._client ADDRESS {json|binary} BOARD OUT

Right is an answer whose bytes are those that the version named in its header gives. `BOARD` is a
small file that both sides map: what was answered, what failed, whether to stop, whether to note
the next failures as those of a killed front. `OUT` gets when each answer began and ended, s (the
clock of the whole system), as float64 pairs.

A connection that breaks is a failure, and the next request goes over a new one.
"""

from __future__ import annotations

import json
import mmap
import struct
import sys
import time
from array import array
from pathlib import Path

import numpy as np

from bench import _peers
from bench._wire import Reply, Wire, post
from tests.agent.models import linear, pixels

BOARD = struct.Struct("<QQQQQ")
ANSWERED, FAILED, STOP, EXCUSED, EXCUSES = range(5)
SLOT = "digits"


def read(board: mmap.mmap, field: int) -> int:
    (value,) = struct.unpack_from("<Q", board, 8 * field)
    return int(value)


def write(board: mmap.mmap, field: int, value: int) -> None:
    struct.pack_into("<Q", board, 8 * field, value)


def is_right(protocol: str, reply: Reply) -> bool:
    """Whether it is what the version that it names answers to `pixels(1)`."""
    version = int(reply.headers["edgefleet-model-version"])
    y = linear(pixels(1), 1 + (version + 1) % 2)
    if protocol == "json":
        return reply.body == json.dumps({"predictions": y.tolist()}, separators=(",", ":")).encode()
    end = int(reply.headers["inference-header-content-length"])
    named = json.loads(reply.body[:end])["model_version"]
    return named == str(version) and reply.body[end:] == y.astype("<f4").tobytes()


def request(protocol: str) -> bytes:
    if protocol == "json":
        body = json.dumps({"instances": pixels(1).tolist()}).encode()
        return post(f"/v1/models/{SLOT}:predict", body)
    return _peers.v2_binary(f"/v2/models/{SLOT}/infer").make(np.ascontiguousarray(pixels(1)))


def run(address: str, protocol: str, board: mmap.mmap) -> array[float]:
    times = array("d")
    asked = request(protocol)
    wire = Wire(address)
    while not read(board, STOP):
        begun = time.monotonic()
        try:
            reply = wire.ask(asked)
            wrong = "" if reply.status == 200 and is_right(protocol, reply) else repr(reply)[:500]
        except OSError as error:
            wrong = repr(error)
            wire.close()
            wire = Wire(address)
        if not wrong:
            times.extend((begun, time.monotonic()))
            write(board, ANSWERED, read(board, ANSWERED) + 1)
            continue
        field = EXCUSED if read(board, EXCUSES) else FAILED
        write(board, field, read(board, field) + 1)
        if field == FAILED:
            print(f"{protocol}: {wrong}", file=sys.stderr, flush=True)
    wire.close()
    return times


def main(address: str, protocol: str, board: str, out: str) -> None:
    with Path(board).open("r+b") as file, mmap.mmap(file.fileno(), BOARD.size) as shared:
        Path(out).write_bytes(run(address, protocol, shared).tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
