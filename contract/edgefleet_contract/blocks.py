"""One block of a blob as it crosses in band [wire-9.3]: a fixed header, then the bytes.

    0   4  "efb1"
    4   1  status: 0 the bytes follow, 1 there is no such blob, 2 come back later
    5   1  zero
    6   2  with status 2: seconds to wait
    8   4  the number of the request
    12  32 SHA-256 of the blob
    44  8  where in the blob the bytes belong
    52  8  how long the blob is

Numbers are unsigned, the most significant byte first.

Law: `Block.parse(block.render()) == block`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from edgefleet_contract.bundle import MAX_FILE_SIZE, Digest
from edgefleet_contract.errors import Malformed

MAGIC: Final = b"efb1"
MAX_LENGTH: Final = 128 * 1024
"""The most bytes of a blob in one block."""
MAX_OFFSETS: Final = 64
"""The most blocks that one request may ask for."""
_HEADER: Final = struct.Struct(">4sBBHI32sQQ")
HEADER_BYTES: Final = _HEADER.size


class Status(IntEnum):
    """What an answer is."""

    DATA = 0
    UNKNOWN = 1
    BUSY = 2


@dataclass(frozen=True, slots=True)
class Block:
    """An answer to a request for blocks; `data` is empty unless the status is DATA."""

    request: int
    sha256: Digest
    offset: int = 0
    size: int = 0
    data: bytes = b""
    status: Status = Status.DATA
    wait_s: int = 0

    def render(self) -> bytes:
        """The bytes that cross."""
        head = _HEADER.pack(
            MAGIC,
            self.status,
            0,
            self.wait_s,
            self.request,
            bytes.fromhex(self.sha256),
            self.offset,
            self.size,
        )
        return head + self.data

    @staticmethod
    def parse(raw: bytes) -> Block:
        """The block in bytes from the network.

        Raises:
            Malformed: it is none.
        """
        if not HEADER_BYTES <= len(raw) <= HEADER_BYTES + MAX_LENGTH:
            raise Malformed(f"block of {len(raw)} bytes")
        magic, status, zero, wait_s, request, digest, offset, size = _HEADER.unpack_from(raw)
        data = raw[HEADER_BYTES:]
        if magic != MAGIC or zero or status not in set(Status):
            raise Malformed(f"block that begins with {raw[:6].hex()}")
        if size > MAX_FILE_SIZE or offset + len(data) > size:
            raise Malformed(f"block of {len(data)} bytes at {offset} of {size}")
        if (data and status != Status.DATA) or (wait_s and status != Status.BUSY):
            raise Malformed(f"block of status {status} with {len(data)} bytes, wait {wait_s}")
        return Block(request, Digest(digest.hex()), offset, size, data, Status(status), wait_s)
