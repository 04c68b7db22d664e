"""A blob in band: the request for blocks of it, and one block as it crosses.

A block [wire-9.3] is a fixed header, then the bytes:

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
from typing import ClassVar, Final

from edgefleet_contract.bundle import MAX_FILE_SIZE, Digest, is_digest
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


@dataclass(frozen=True, slots=True)
class BlobRequest:
    """A device asks for blocks of a blob [wire-9.2]: `length` bytes from each of `offsets`.

    `request` is a number of the device's choice that comes back with each block. With `base` the
    blocks are those of the delta that makes the blob from that one [wire-9.6].
    """

    SCHEMA: ClassVar[str] = "edgefleet.blob-get/1"

    device: str
    request: int
    sha256: Digest
    length: int
    offsets: tuple[int, ...]
    base: Digest | None = None
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_digest(self.sha256) or not (self.base is None or is_digest(self.base)):
            raise Malformed("blob request: a digest is not 64 lower-case hex digits")
        if not 0 <= self.request < 2**32 or not 0 < self.length <= MAX_LENGTH:
            raise Malformed(f"blob request {self.request}: blocks of {self.length} bytes")
        if not 0 < len(self.offsets) <= MAX_OFFSETS or min(self.offsets) < 0:
            raise Malformed(f"blob request {self.request}: {len(self.offsets)} offsets")
