"""Makes the vectors of deltas: `python -m tests.vectors.make_delta`.

A body is canonical JSON: the old file as the first `old_size` bytes of SHAKE-256 of `old_seed`, the
delta in base64, and what is asked for: `new` (SHA-256) and `new_size`. What a Zstandard library
packs differs by its version, so vectors are made once and kept.
"""

from __future__ import annotations

import base64

from edgefleet_contract import canonical
from edgefleet_contract import delta as d
from edgefleet_contract.bundle import sha256
from edgefleet_contract.delta import Code, Head, Kind, Operation
from edgefleet_contract.lanes import Layout
from tests.contract.deltas import by_operations, noise, packed, whole
from tests.vectors.make import write

SEED = "the version before"
OLD = noise(SEED, 4000)
NEW = OLD[:1000] + bytes(byte ^ 1 for byte in OLD[1000:3000]) + noise("fresh", 400) + OLD[3400:4000]
FILES = (sha256(OLD), len(OLD), sha256(NEW), len(NEW))
EVERY = (
    Operation(Code.COPY, 0, 1000),
    Operation(Code.SUB, 1000, 500),
    Operation(Code.SUB, 1500, 500, Layout.CRUMBS),
    Operation(Code.XOR, 2000, 200, Layout.PAIRS),
    Operation(Code.XOR, 2200, 400, Layout.QUADS),
    Operation(Code.SUB, 2600, 400, Layout.OCTETS),
    Operation(Code.NEW, 0, 100),
    Operation(Code.NEW, 0, 300, Layout.QUADS),
    Operation(Code.COPY, 3400, 600),
)


def vector(name: str, expect: str, delta: bytes, comment: str) -> None:
    told: dict[str, canonical.Json] = {
        "old_seed": SEED,
        "old_size": len(OLD),
        "new": sha256(NEW),
        "new_size": len(NEW),
        "delta": base64.b64encode(delta).decode(),
    }
    write("delta", name, expect, canonical.render(told), comment)


def refused(name: str, delta: bytes, comment: str) -> None:
    vector(name, "malformed", delta, comment)


def of_kind(kind: Kind, stream: bytes, *operations: Operation) -> bytes:
    """A delta of one stream."""
    name = d.LITERAL if kind is Kind.TENSOR else d.WHOLE
    return d.render_head(Head(kind, *FILES, {name: len(stream)}, operations)) + stream


def edited(delta: bytes, old: bytes, new: bytes) -> bytes:
    """A delta with another text in its head, of whatever length."""
    assert old in delta, old
    start = delta.index(b"{")
    end = start + int.from_bytes(delta[start - 4 : start], "big")
    head = delta[start:end].replace(old, new, 1)
    return d.MAGIC + len(head).to_bytes(4, "big") + head + delta[end:]


def main() -> None:
    good = by_operations(OLD, NEW, EVERY)
    vector("zstd", "ok", whole(Kind.ZSTD, OLD, NEW), "the new file alone")
    vector("prefix", "ok", whole(Kind.PREFIX, OLD, NEW), "the old file as a prefix")
    vector("tensor", "ok", good, "every operation, every layout")
    moved = by_operations(
        OLD, NEW, (Operation(Code.XOR, 500, 2000), Operation(Code.SUB, 0, 2000, Layout.OCTETS))
    )
    vector("backwards", "ok", moved, "reads the old file from where it likes")

    refused("magic", b"edgefleet.delta/2\n" + good[18:], "another version")
    refused("empty", b"", "nothing")
    refused("no-head", good[:22], "it ends where its head begins")
    refused("cut-head", good[:100], "it ends in its head")
    refused("cut-stream", good[:-1], "its last byte is missing")
    refused("trailing", good + b"\0", "a byte after the last stream")
    refused("huge-head", d.MAGIC + b"\x00\x04\x00\x01{", "a head of 256 KiB and a byte")
    refused("spaces", edited(good, b'"kind":', b'"kind": '), "another spelling of the head")
    refused("unknown-field", edited(good, b'{"kind"', b'{"hint":1,"kind"'), "a field nobody knows")
    refused("unknown-kind", edited(good, b'"tensor"', b'"python"'), "a kind nobody knows")
    refused("too-long", edited(good, b"[3,100,1]", b"[3,101,1]"), "more than the new file")
    refused("too-short", edited(good, b"[0,0,1000]", b"[0,0,999]"), "less than the new file")
    refused("overlap", edited(good, b"[0,400,600]", b"[0,400,600],[0,-600,600]"), "made twice")
    refused("past-the-end", edited(good, b"[0,400,600]", b"[0,401,600]"), "past the old file")
    refused("before-the-start", edited(good, b"[0,0,1000]", b"[0,-1,1000]"), "before the old file")
    refused("no-bytes", edited(good, b"[0,0,1000]", b"[0,0,0],[0,0,1000]"), "makes nothing")
    refused("negative", edited(good, b"[0,0,1000]", b"[0,0,-1],[0,1,1001]"), "makes less than that")
    refused("unknown-operation", edited(good, b"[0,0,1000]", b"[9,0,1000]"), "unknown operation")
    refused("unknown-layout", edited(good, b",500,0]", b",500,3]"), "lanes of three bytes")
    refused("odd-lanes", edited(good, b"[3,100,1]", b"[3,97,4],[3,3,1]"), "lanes that do not fit")
    refused("stream-missing", edited(good, b'"8.7":', b'"8.8":'), "a stream under another name")
    refused("other-old", edited(good, sha256(OLD).encode(), b"0" * 64), "for another old file")
    refused("other-new", edited(good, sha256(NEW).encode(), b"0" * 64), "to another new file")
    whole_size = b'"new_size":4000'
    refused("other-size", edited(good, whole_size, b'"new_size":4001'), "of another size")

    refused("bomb", of_kind(Kind.ZSTD, packed(bytes(64_000_000))), "4,000 bytes that are 64 MB")
    bomb = packed(bytes(64_000_000))
    literal = Operation(Code.NEW, 0, len(NEW))
    refused("bomb-in-stream", of_kind(Kind.TENSOR, bomb, literal), "the same in a stream")
    refused("short-stream", of_kind(Kind.ZSTD, packed(NEW[:-1])), "a frame without the last byte")
    refused("two-frames", of_kind(Kind.ZSTD, packed(NEW[:9]) + packed(NEW[9:])), "two frames")
    wide = packed(NEW, window_log=24)
    refused("window", of_kind(Kind.ZSTD, wide), "a window of 16 MiB")
    wide = packed(NEW, window_log=22)
    refused("stream-window", of_kind(Kind.TENSOR, wide, literal), "a stream's window of 4 MiB")
    refused("not-zstd", of_kind(Kind.ZSTD, b"PK\3\4" + NEW), "another format")
    prefix = whole(Kind.PREFIX, OLD, NEW)
    refused("no-prefix", edited(prefix, b'"zstd-prefix"', b'"zstd"'), "a prefix is not told of")
    for name, size in (("short-prefix", b"7"), ("long-prefix", b"31996000")):
        refused(name, edited(prefix, b'"old_size":4000', b'"old_size":' + size), "not a prefix")
    vector(
        "other-bytes", "digest_mismatch", of_kind(Kind.ZSTD, packed(NEW[:-1] + b"\0")),
        "a good delta to another file of that size",
    )  # fmt: skip


if __name__ == "__main__":
    main()
