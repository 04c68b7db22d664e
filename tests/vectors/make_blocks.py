"""Makes the vectors of blocks of blobs in band: `python -m tests.vectors.make_blocks`."""

from __future__ import annotations

from edgefleet_contract.blocks import HEADER_BYTES, MAX_LENGTH, Block, Status
from edgefleet_contract.bundle import MAX_FILE_SIZE, sha256
from tests.vectors.make import write

DIGEST = sha256(b"a blob")
GOOD = Block(7, DIGEST, 65_536, 65_542, b"a blob").render()


def patched(offset: int, data: bytes) -> bytes:
    """The good block with other bytes at a place."""
    return GOOD[:offset] + data + GOOD[offset + len(data) :]


def block_vectors() -> None:
    for name, block, comment in (
        ("unknown", Block(7, DIGEST, status=Status.UNKNOWN), "there is no such blob"),
        ("busy", Block(7, DIGEST, status=Status.BUSY, wait_s=30), "come back in 30 s"),
        ("empty-blob", Block(0, sha256(b"")), "a blob without bytes"),
        ("highest", Block(2**32 - 1, DIGEST, MAX_FILE_SIZE - 1, MAX_FILE_SIZE, b"x"), "its limits"),
    ):
        write("block", name, "ok", block.render(), comment)
    write("block", "good", "ok", GOOD, "the last six bytes of a blob")
    for name, raw, comment in (
        ("nothing", b"", "no bytes"),
        ("cut", GOOD[: HEADER_BYTES - 1], "the header is cut"),
        ("too-long", patched(52, b"\0\0\0\1") + bytes(MAX_LENGTH), "longer than a block may be"),
        ("magic", patched(3, b"2"), "another version"),
        ("status", patched(4, b"\3"), "a status that is none"),
        ("reserved", patched(5, b"\1"), "a byte that is zero"),
        ("beyond-the-end", patched(44, b"\0\0\0\0\0\1\0\1"), "bytes after the blob's end"),
        ("huge", patched(52, b"\xff"), "a blob of 2^64 bytes"),
        ("unknown-with-bytes", patched(4, b"\1"), "no such blob, and its bytes"),
        ("data-with-wait", patched(7, b"\1"), "bytes, and a time to wait"),
    ):
        write("block", name, "malformed", raw, comment)


if __name__ == "__main__":
    block_vectors()
