"""Hostile deltas at a device's door: nobody signs them, so anybody may have made them.

The file itself is nowhere to be had, so that what is accepted was made of the delta, and a delta
that is refused ends in `not_found`. (That a device otherwise fetches the file is shown in
tests/agent/test_updates.py.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.device import Installed
from edgefleet_agent.ports import Choice
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract import bundle as b
from edgefleet_contract import canonical
from edgefleet_contract import delta as d
from edgefleet_contract.delta import Code, Kind, Operation
from edgefleet_contract.lanes import Layout
from edgefleet_contract.reasons import Reason
from tests.agent.bundles import make_bundle
from tests.contract.deltas import by_operations, noise, packed, whole
from tests.contract.makers import target_of
from tests.hostile.attempts import Attempt, files_below, hostile
from tests.hostile.ground import BLOCK_S, Ground, blobs_of
from tests.hostile.liars import LIES, Lie

SIZE = 20_000
OLD = noise("an old model", SIZE // 10) * 10
NEW = OLD[:5_000] + bytes((byte + 1) % 256 for byte in OLD[5_000:9_000]) + OLD[9_000:]
OPERATIONS = (
    Operation(Code.COPY, 0, 5_000),
    Operation(Code.SUB, 5_000, 4_000, Layout.CRUMBS),
    Operation(Code.XOR, 9_000, 1_000, Layout.QUADS),
    Operation(Code.COPY, 10_000, SIZE - 10_000),
)
GOOD = {
    Kind.ZSTD: whole(Kind.ZSTD, OLD, NEW),
    Kind.PREFIX: whole(Kind.PREFIX, OLD, NEW),
    Kind.TENSOR: by_operations(OLD, NEW, OPERATIONS),
}
NAME = f"{b.sha256(NEW)}/delta/{b.sha256(OLD)}"


@dataclass
class Door:
    """A device with the old model, and a source that has all of the new one but its file."""

    ground: Ground
    name: str

    def __post_init__(self) -> None:
        folder = self.ground.folder / self.name
        old, new = (
            make_bundle(folder, version, raw=raw) for version, raw in enumerate((OLD, NEW), 1)
        )
        self.store = Store(folder / "device")
        self.bundles = Bundles(
            store=self.store,
            fetcher=Mover(self.store, [HttpChunks(block_s=BLOCK_S)]),
            publishers=lambda: self.ground.ring,
            choose=lambda manifest: Choice(manifest.variants[0], "onnxruntime"),
            hw="x86-64",
        )
        self.ground.liar.blobs = blobs_of(old)
        url = (self.ground.liar.url,)
        self.serving = self.bundles.bring(target_of(old), url, lambda *_: None).installed
        self.blobs, self.target = blobs_of(new), target_of(new)
        del self.blobs[b.sha256(NEW)]

    def bring(self, delta: bytes) -> object:
        """What lies in the store as the new model; then it goes, as at the end of an install."""
        self.ground.liar.blobs = {**self.blobs, NAME: delta}
        kept: tuple[Installed, ...] = (self.serving,)
        try:
            sources = (self.ground.liar.url,)
            self.bundles.bring(self.target, sources, lambda *_: None, serving=kept)
            return self.store.path(b.sha256(NEW)).read_bytes()
        finally:
            self.bundles.collect(kept)

    def attempt(self, name: str, delta: bytes, lie: Lie = LIES[0], victim: str = "") -> Attempt:
        def go() -> object:
            self.ground.liar.tell(b.Digest(victim), lie)
            return self.bring(delta)

        return Attempt(name, go, same=NEW, trace=lambda: files_below(self.store.path(NEVER).parent))


NEVER = b.sha256(b"never")


@hostile("deltas", Reason.NOT_FOUND, sample=60)
def deltas(ground: Ground) -> Iterator[Attempt]:
    """Every kind of delta with a byte changed, cut or added; heads that lie; streams that burst."""
    door = Door(ground, "deltas")
    for kind, good in GOOD.items():
        assert door.bring(good) == NEW, kind
        for position in range(0, len(good), max(1, len(good) // 80)):
            mutant = bytearray(good)
            mutant[position] ^= 0x10
            yield door.attempt(f"{kind}: byte {position}", bytes(mutant))
            yield door.attempt(f"{kind}: {position} bytes", good[:position])
        yield door.attempt(f"{kind}: twice", good + good)
        yield door.attempt(f"{kind}: a byte more", good + b"\0")
    for name, delta in lies().items():
        yield door.attempt(name, delta)


def lies() -> dict[str, bytes]:
    """Heads and streams that an attacker would think of, by name."""
    bomb = packed(bytes(1 << 26))
    wide = packed(noise("wide", 1000), window_log=27)
    found = {
        "a bomb": raw(whole_head(), bomb),
        "a window of 128 MiB": raw(whole_head(), wide),
        "no stream": raw({**whole_head(), "packed": {}}, b""),
        "a stream of another name": raw({**whole_head(), "packed": {"../whole": 5}}, b"12345"),
        "a stream of minus one": raw({**whole_head(), "packed": {"whole": -1}}, b""),
        "a stream without end": raw({**whole_head(), "packed": {"whole": 2**53 - 1}}, b"1"),
        "a head of 256 KiB and one": d.MAGIC + (2**18 + 1).to_bytes(4, "big") + bytes(15_000),
        "a head of 4 GiB": d.MAGIC + b"\xff" * 4 + b"{}",
        "another version": whole(Kind.PREFIX, OLD, NEW).replace(b"delta/1", b"delta/2"),
        "for other files": whole(Kind.PREFIX, OLD, NEW + b"!"),
        "from another file": whole(Kind.ZSTD, OLD[1:], NEW),
        "a new file of 2^53": raw({**whole_head(), "new_size": 2**53 - 1}, bomb),
        "a field more": raw({**whole_head(), "path": "/etc/passwd"}, bomb),
        "JSON that is not canonical": d.MAGIC + (3).to_bytes(4, "big") + b"{ }",
    }
    forged = NEW[:-1] + bytes([NEW[-1] ^ 1])
    for kind in (Kind.ZSTD, Kind.PREFIX):
        found[f"{kind}: other bytes under the name"] = whole(kind, OLD, forged).replace(
            b.sha256(forged).encode(), b.sha256(NEW).encode()
        )
    for name, rows in {
        "reads before the file": [[0, -1, SIZE]],
        "reads behind the file": [[0, 1, SIZE]],
        "reads behind the file by a step": [[0, 0, SIZE - 1], [0, 0, 1]],
        "makes too much": [[0, 0, SIZE], [0, -SIZE, SIZE]],
        "makes too little": [[0, 0, SIZE - 1]],
        "makes nothing at all": [],
        "makes a negative piece": [[0, 0, SIZE + 1], [0, 0, -1]],
        "an unknown operation": [[4, 0, SIZE]],
        "an unknown layout": [[1, 0, SIZE, 3]],
        "an operation of a thousand numbers": [[0] * 1000],
        "a size of 2^53": [[0, 0, 2**53 - 1]],
        "20,001 operations": [[0, 0, 1]] * (d.MAX_OPERATIONS + 1),
        "operations of one byte that make other bytes": [[0, 0, 1], [0, -1, SIZE - 1]],
    }.items():
        head = {**whole_head(), "kind": "tensor", "packed": {}, "operations": rows}
        found[f"tensor: {name}"] = raw(head, b"")
    return found


def whole_head() -> dict[str, canonical.Json]:
    """The head of an honest delta of one stream of five bytes."""
    return {
        "kind": "zstd",
        "old": b.sha256(OLD),
        "old_size": len(OLD),
        "new": b.sha256(NEW),
        "new_size": len(NEW),
        "packed": {"whole": 5},
        "operations": [],
    }


def raw(head: dict[str, canonical.Json], streams: bytes) -> bytes:
    """A delta with any head; a stream's size is put right where it is the honest one's."""
    if head["packed"] == {"whole": 5}:
        head = {**head, "packed": {"whole": len(streams)}}
    text = canonical.render(head)
    return d.MAGIC + len(text).to_bytes(4, "big") + text + streams


@hostile("delta_transfers", Reason.NOT_FOUND, sample=30)
def delta_transfers(ground: Ground) -> Iterator[Attempt]:
    """Every lie of a server about a delta that is good."""
    door = Door(ground, "delta-transfers")
    for kind in (Kind.PREFIX, Kind.TENSOR):
        for lie in LIES:
            yield door.attempt(f"{lie.name}: {kind}", GOOD[kind], lie, NAME)
