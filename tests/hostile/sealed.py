"""Hostile sealed bundles: keys, files, indexes and orders, at every door that they pass.

The attacker is given the director's key, and where it helps the DEK itself: then all that is left
is that what comes out must be what the publisher signed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgefleet_agent.ports import FileSeal, StoredFile
from edgefleet_agent.runtime.loading import read_stored
from edgefleet_contract import bundle as b
from edgefleet_contract import canonical, codec, messages
from edgefleet_contract.envelope import render_envelope, seal
from edgefleet_contract.messages import ORDER_TYPE
from edgefleet_contract.orders import Sealed, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.sealed import Dek, file_key, make_dek, open_dek, seal_dek, seal_file
from edgefleet_contract.sealed_index import SealedFile, parse_index, render_index
from tests.agent.bundles import make_bundle
from tests.agent.sealing import NAMES, SealedBundle, seal_bundle
from tests.contract.makers import order_of
from tests.hostile.attempts import TRANSIENT, Attempt, hostile
from tests.hostile.board import Victim, golden
from tests.hostile.ground import Ground
from tests.hostile.liars import LIES, Lie, one_byte_more
from tests.hostile.signatures import flipped

MODEL = "onnx/model.onnx"
GOLDEN = "onnx/golden.npz"


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def other_bundle(ground: Ground) -> SealedBundle:
    """Version 1, sealed: good in every way, and another."""
    return seal_bundle(ground.old)


@hostile("sealed_keys", Reason.UNSEALING_FAILED, Reason.MALFORMED, sample=200)
def sealed_keys(ground: Ground) -> Iterator[Attempt]:
    """Every bit of a sealed key flipped, every cut, and keys for others, as a device opens them."""
    made = seal_bundle(ground.good)
    good = made.target(ground.seal_key.public_key()).sealed
    assert good is not None
    raw = good.sealed_dek
    names = {**NAMES, "bundle": made.digest}

    def opened(sealed: bytes, key: X25519PrivateKey = ground.seal_key, **change: str) -> object:
        return open_dek(sealed, key, **{**names, **change})  # type: ignore[arg-type] # names

    assert opened(raw) == made.dek
    for bit in range(8 * len(raw)):
        yield Attempt(f"bit {bit}", lambda n=bit: opened(flipped(raw, n // 8, 1 << n % 8)))
    for size in (*range(len(raw)), len(raw) + 1, 2 * len(raw)):
        yield Attempt(f"{size} bytes", lambda m=(raw * 2)[:size]: opened(m))
    stranger = X25519PrivateKey.generate()
    for name, go in {
        "of another device's key": lambda: opened(raw, stranger),
        "of another device": lambda: opened(raw, device="pi-2"),
        "of another fleet": lambda: opened(raw, fleet="other"),
        "of another bundle": lambda: opened(raw, bundle=b.sha256(b"x")),
        "names that run together": lambda: opened(raw, fleet="demo|pi-1", device="x"),
        "of zeros": lambda: opened(bytes(80)),
        "for a stranger": lambda: opened(made.sealed_for(stranger.public_key()).sealed_dek),
        "of another bundle's order": lambda: opened(
            other_bundle(ground).sealed_for(ground.seal_key.public_key()).sealed_dek
        ),
    }.items():
        yield Attempt(name, go)


@hostile("sealed_files", Reason.UNSEALING_FAILED, Reason.DIGEST_MISMATCH, sample=120)
def sealed_files(ground: Ground) -> Iterator[Attempt]:
    """Sealed files changed, cut, exchanged and put together anew, as a child opens them."""
    content = bytes(range(256)) * (3 * b.CHUNK_SIZE // 256) + b"the end"
    bundle, dek = b.sha256(b"bundle"), make_dek()
    seal = FileSeal(bundle, MODEL, file_key(dek, bundle, MODEL).hex())
    good = seal_file(dek, bundle, MODEL, content)
    place = ground.folder / "sealed-file"
    told = StoredFile(str(place), b.sha256(content), seal)

    def opened(raw: bytes, told: StoredFile = told) -> object:
        place.write_bytes(raw)
        return read_stored(told, MODEL)

    assert opened(good) == content
    step = b.CHUNK_SIZE + 16
    chunks = [good[at : at + step] for at in range(0, len(good), step)]
    edges = (0, 15, 16, step - 1, step, step + 1, 3 * step, len(good) - 1)
    for at in sorted({*edges, *range(0, len(good), len(good) // 150)}):
        if at < len(good):
            yield Attempt(f"byte {at}", lambda n=at: opened(flipped(good, n, 1 << n % 8)))
        yield Attempt(f"{at} bytes", lambda m=good[:at]: opened(m))
    first, second, third, last = chunks
    for name, raw in {
        "chunks exchanged": second + first + third + last,
        "a chunk twice": first + first + third + last,
        "a chunk left out": first + third + last,
        "the end alone": last,
        "the end twice": good + last,
        "a byte more": good + b"\0",
        "in the clear": content,
        "nothing": b"",
        "under another path": seal_file(dek, bundle, GOLDEN, content),
        "of another bundle": seal_file(dek, b.sha256(b"x"), MODEL, content),
        "under another key": seal_file(make_dek(), bundle, MODEL, content),
        "well sealed, not what was signed": seal_file(dek, bundle, MODEL, content[:-1] + b"D"),
        "well sealed, empty": seal_file(dek, bundle, MODEL, b""),
        "well sealed, longer": seal_file(dek, bundle, MODEL, content + b"\0"),
    }.items():
        yield Attempt(name, lambda m=raw: opened(m))
    for name, wrong in {
        "another key": replace(told, seal=replace(seal, key="00" * 32)),
        "another path": replace(told, seal=replace(seal, path=GOLDEN)),
        "another bundle": replace(told, seal=replace(seal, bundle=b.sha256(b"x"))),
        "another digest": replace(told, sha256=b.sha256(b"x")),
    }.items():
        yield Attempt(f"opened with {name}", lambda w=wrong: opened(good, w))


@hostile("sealed_mutants", Reason.DIGEST_MISMATCH, sample=60)
def sealed_mutants(ground: Ground) -> Iterator[Attempt]:
    """An index or a sealed file with a byte changed or cut, under the digest that was ordered."""
    made = seal_bundle(ground.good)
    target = made.target(ground.seal_key.public_key())
    assert target.sealed is not None
    for digest in (target.sealed.index_sha256, *(file.sha256 for file in made.index.files)):
        raw = made.blobs[digest]
        for at in range(0, len(raw), max(1, len(raw) // 60)):
            for name, mutant in (
                (f"{digest[:8]}: byte {at}", flipped(raw, at, 1 << at % 8)),
                (f"{digest[:8]}: {at} bytes", raw[:at]),
            ):
                blobs = {**made.blobs, digest: mutant}
                yield Attempt(
                    name,
                    lambda blobs=blobs: ground.bring_sealed(target, blobs),
                    trace=ground.on_disk,
                    expected=frozenset({Reason.DIGEST_MISMATCH, TRANSIENT}),
                )


@hostile("index_cuts", Reason.MALFORMED, sample=100)
def index_cuts(ground: Ground) -> Iterator[Attempt]:
    """An index cut at every offset, and vouched for."""
    raw = render_index(seal_bundle(ground.good).index)
    for size in range(len(raw)):
        yield Attempt(f"{size} bytes", lambda m=raw[:size]: parse_index(m))


@hostile("sealed_indexes", Reason.MALFORMED, Reason.BUNDLE_MISMATCH, sample=40)
def sealed_indexes(ground: Ground) -> Iterator[Attempt]:
    """Indexes that a thief of the director's key vouched for, and that are not the bundle's."""
    made = seal_bundle(ground.good)
    value = codec.encode(made.index)
    assert isinstance(value, dict)
    files: Any = value["files"]
    first, second = files
    sealed = made.sealed_for(ground.seal_key.public_key())

    def brought(document: bytes) -> object:
        digest = b.sha256(document)
        target = replace(
            made.target(ground.seal_key.public_key()), sealed=replace(sealed, index_sha256=digest)
        )
        return ground.bring_sealed(target, {**made.blobs, digest: document})

    documents: dict[str, bytes] = {
        "nothing": b"",
        "bytes": b"\0" * 100,
        "a list": b"[]",
        "a blank": render_index(made.index) + b" ",
        "a bomb": b"[" * 100_000,
        "another kind of document": ground.manifest,
        "of the other bundle": render_index(other_bundle(ground).index),
        "huge": b'"' + b"a" * canonical.MAX_BYTES + b'"',
        "twice the same key": render_index(made.index).replace(b"{", b'{"bundle":"x",', 1),
    }
    changes: dict[str, dict[str, Any]] = {
        "no files": {"files": []},
        "a file less": {"files": [first]},
        "a file more": {"files": [*files, {**second, "path": "z"}]},
        "files out of order": {"files": [second, first]},
        "a file twice": {"files": [first, first, second]},
        "files exchanged": {
            "files": [{**second, "path": first["path"]}, {**first, "path": second["path"]}]
        },
        "a path that leads out": {"files": [{**first, "path": "../../x"}, second]},
        "an absolute path": {"files": [{**first, "path": "/etc/passwd"}, second]},
        "a NUL in a path": {"files": [{**first, "path": "a\0"}, second]},
        "the manifest as a file": {"files": [{**first, "path": b.MANIFEST}, second]},
        "another bundle": {"bundle": b.sha256(b"x")},
        "no bundle": {"bundle": ""},
        "another schema": {"schema": "edgefleet.sealed-index/9"},
        "a field more": {"dek": "ff" * 32},
        "files as an object": {"files": {"a": first}},
    }
    for name, wrong in {
        "size": (-1, 0, 15, first["size"] + 1, first["size"] - 1, 2**52, "100", True),
        "sha256": ("", "x", "A" * 64, "../" * 21 + "x", 7),
        "chunk_list_sha256": ("", "A" * 64, 7),
    }.items():
        for item in wrong:
            changes[f"{name} {str(item)[:12]!r}"] = {"files": [{**first, name: item}, second]}
    documents |= {name: canonical.render({**value, **change}) for name, change in changes.items()}
    for name, document in documents.items():
        yield Attempt(
            name,
            lambda d=document: brought(d),
            trace=ground.on_disk,
            expected=frozenset({Reason.MALFORMED, Reason.BUNDLE_MISMATCH, Reason.TOO_LARGE}),
        )
    for name, file in {
        "blobs of the plain file": SealedFile(
            MODEL,
            made.index.file(MODEL).size,
            b.sha256((ground.good / MODEL).read_bytes()),
            b.sha256(b.chunk_list((ground.good / MODEL).read_bytes())),
        ),
        "the blob of the golden vectors as the model": replace(
            made.index.file(GOLDEN), path=MODEL, size=made.index.file(MODEL).size
        ),
    }.items():
        index = replace(made.index, files=(made.index.file(GOLDEN), file))
        yield Attempt(
            name,
            lambda i=index: brought(render_index(i)),
            trace=ground.on_disk,
            expected=frozenset(
                {Reason.DIGEST_MISMATCH, Reason.UNSEALING_FAILED, Reason.TOO_LARGE, TRANSIENT}
            ),
        )


@hostile("sealed_transfers", TRANSIENT, Reason.DIGEST_MISMATCH, Reason.TOO_LARGE, sample=30)
def sealed_transfers(ground: Ground) -> Iterator[Attempt]:
    """Every lie of a server, about the index, a sealed file and its chunk list."""
    made = seal_bundle(ground.good)
    target = made.target(ground.seal_key.public_key())
    assert target.sealed is not None
    model = made.index.file(MODEL)

    def told(victim: b.Digest, lie: Lie) -> Callable[[], object]:
        def go() -> object:
            ground.liar.tell(victim, lie)
            try:
                return ground.bring_sealed(target, made.blobs)
            finally:
                ground.liar.tell(b.Digest(""), Lie(one_byte_more, frozenset()))

        return go

    for lie in LIES:
        for what, victim in (
            ("the index", target.sealed.index_sha256),
            ("a sealed model", model.sha256),
            ("its chunk list", model.chunk_list_sha256),
        ):
            yield Attempt(
                f"{lie.name}: {what}",
                told(victim, lie),
                trace=ground.on_disk,
                expected=lie.refused,
            )


@hostile("sealed_orders", Reason.MALFORMED, sample=60)
def sealed_orders(ground: Ground) -> Iterator[Attempt]:
    """Well signed orders whose sealed key or index is not one."""
    made = seal_bundle(ground.good)
    order = order_of(made.target(ground.seal_key.public_key()), seq=7)
    value = codec.encode(order)
    assert isinstance(value, dict)
    (target,) = value["targets"]  # type: ignore[misc] # a list of one
    sealed = target["sealed"]  # type: ignore[index,call-overload] # an object
    dek = sealed["dek"]  # type: ignore[index,call-overload] # as above
    bodies: dict[str, object] = {
        "as a text": dek,
        "as a list": [sealed],
        "as truth": True,
        "empty": {},
        "without a key": {"index_sha256": made.digest},
        "without an index": {"dek": dek},
    }
    for wrong in ("", dek[:-4], dek + "AAAA", dek[:-1], dek + "\n", "-" * 108, "A" * 108, 7, None):
        bodies[f"with the key {str(wrong)[-12:]!r}"] = {**sealed, "dek": wrong}  # type: ignore[dict-item] # as above
    for wrong in ("", "a" * 63, "A" * 64, "../" + "a" * 61, 7, None):
        bodies[f"with the index {str(wrong)[:12]!r}"] = {**sealed, "index_sha256": wrong}  # type: ignore[dict-item] # as above
    for name, body in bodies.items():
        if isinstance(body, dict):
            body = {key: item for key, item in body.items() if item is not None}
        raw = canonical.render({**value, "targets": [{**target, "sealed": body}]})  # type: ignore[dict-item] # as above
        envelope = render_envelope(seal(raw, payload_type=ORDER_TYPE, keys=(ground.director,)))
        yield Attempt(name, lambda e=envelope: messages.open_order(e, ground.director_ring))


@hostile(
    "sealed_boards",
    Reason.UNSEALING_FAILED,
    Reason.DIGEST_MISMATCH,
    Reason.BUNDLE_MISMATCH,
    Reason.GOLDEN_MISMATCH,
    Reason.MALFORMED,
    Reason.NOT_FOUND,
    Reason.QUARANTINED,
    sample=8,
)
def sealed_boards(ground: Ground) -> Iterator[Attempt]:
    """Whole installs of sealed bundles on a device that serves all the while."""
    victim = Victim(ground, "sealed-board")
    try:
        yield from _attacks(ground, victim)
    finally:
        victim.close()


def _attacks(ground: Ground, victim: Victim) -> Iterator[Attempt]:
    folder = ground.folder / "sealed-attacks"
    mine, stranger = ground.seal_key.public_key(), X25519PrivateKey.generate().public_key()
    made = seal_bundle(make_bundle(folder / "a", 2))
    good = made.target(mine)
    assert good.sealed is not None
    raw = good.sealed.sealed_dek

    def attempt(name: str, target: Target, blobs: dict[str, bytes]) -> Attempt:
        return Attempt(name, lambda: victim.attack(target, blobs), trace=victim.state)

    def keyed(sealed_dek: bytes) -> Target:
        return replace(good, sealed=Sealed(encoded(sealed_dek), good.sealed.index_sha256))  # type: ignore[union-attr] # asserted

    for name, target in {
        "for another device's key": made.target(stranger),
        "for another device": made.target(mine, device="pi-2"),
        "for another fleet": made.target(mine, fleet="other"),
        "a key of zeros": keyed(bytes(80)),
        "a flipped bit": keyed(flipped(raw, 40, 1)),
        "another bundle's key": keyed(other_bundle(ground).sealed_for(mine).sealed_dek),
        "another DEK, well sealed for this device": keyed(
            seal_dek(Dek(bytes(32)), mine, bundle=made.digest, **NAMES)
        ),
    }.items():
        yield attempt(name, target, made.blobs)
    foreign = other_bundle(ground)
    yield attempt(
        "another bundle's index",
        replace(good, sealed=foreign.sealed_for(mine)),
        {**made.blobs, **foreign.blobs},
    )
    model = made.index.file(MODEL)
    yield attempt(
        "a spoilt sealed model",
        good,
        {**made.blobs, model.sha256: flipped(made.blobs[model.sha256], 99, 1)},
    )
    bare = {
        digest: blob for digest, blob in made.blobs.items() if digest != good.sealed.index_sha256
    }
    yield attempt("a missing index", good, bare)
    for name, path, content in (
        ("another model, well sealed", MODEL, (ground.good / MODEL).read_bytes()[:-1] + b"\0"),
        ("no model, well sealed", MODEL, b""),
        ("other golden outputs, well sealed", GOLDEN, b"PK"),
    ):
        yield attempt(name, *_with(made, mine, path, content))
    lying = seal_bundle(make_bundle(folder / "b", 3, golden_off=0.5))
    yield attempt("lying golden outputs, signed", lying.target(mine), lying.blobs)
    yield attempt("what failed here, sealed again", lying.target(mine), lying.blobs)
    pickle = seal_bundle(golden(folder / "c", 4, b"\x80\x04."))
    yield attempt("golden outputs that are a pickle", pickle.target(mine), pickle.blobs)


def _with(
    made: SealedBundle, key: Any, path: str, content: bytes
) -> tuple[Target, dict[str, bytes]]:
    """The bundle with something else sealed in the place of a file, its size kept."""
    size = next(f.size for f in b.parse_manifest(made.blobs[made.digest]).files if f.path == path)
    raw = seal_file(made.dek, made.digest, path, content.ljust(size, b"\0")[:size])
    table = b.chunk_list(raw)
    file = SealedFile(path, len(raw), b.sha256(raw), b.sha256(table))
    files = tuple(file if item.path == path else item for item in made.index.files)
    other = replace(made, index=replace(made.index, files=files))
    document = render_index(other.index)
    blobs = {b.sha256(item): item for item in (raw, table, document)}
    return other.target(key), {**made.blobs, **blobs}
