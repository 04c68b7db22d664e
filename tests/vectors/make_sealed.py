"""Makes the vectors of sealed files and keys: `python -m tests.vectors.make_sealed`.

A body is canonical JSON. Of a file: `dek`, `bundle`, `path`, the plain text as the first `size`
bytes of SHAKE-256 of `seed`, and either `sealed` (hex) or, where it is long, `sealed_sha256`. Of a
DEK: `private` (X25519, raw), `fleet`, `device`, `bundle`, `dek`, `sealed`. An index is its own
vector, in the folder `index`.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgefleet_contract import canonical
from edgefleet_contract.bundle import CHUNK_SIZE, chunk_list, sha256
from edgefleet_contract.canonical import Json
from edgefleet_contract.sealed import Dek, seal_dek, seal_file
from edgefleet_contract.sealed_index import SealedFile, SealedIndex, render_index
from tests.vectors.make import write

DEK = Dek(bytes(range(32)))
BUNDLE = sha256(b"bundle.json")
PATH = "onnx-int8/model.onnx"
OTHER = sha256(b"another bundle.json")
REFUSED = "unsealing_failed"


def plain(seed: str, size: int) -> bytes:
    """The first bytes of SHAKE-256 of a text."""
    return hashlib.shake_256(seed.encode()).digest(size)


def file_vector(name: str, size: int) -> None:
    body = file_body(name, size)
    sealed = seal_file(DEK, BUNDLE, PATH, plain(name, size))
    if len(sealed) > 1000:
        body["sealed_sha256"] = sha256(sealed)
    else:
        body["sealed"] = sealed.hex()
    write("sealed", f"file-{name}", "ok", canonical.render(body), f"{size} bytes")


def file_body(seed: str, size: int) -> dict[str, Json]:
    """What a vector of a file says beside its sealed bytes."""
    return {"dek": DEK.raw.hex(), "bundle": BUNDLE, "path": PATH, "seed": seed, "size": size}


def refused_file(name: str, sealed: bytes, comment: str, **fields: Json) -> None:
    body = {**file_body("short", 11), "sealed": sealed.hex(), **fields}
    write("sealed", f"file-{name}", REFUSED, canonical.render(body), comment)


def file_vectors() -> None:
    for name, size in (
        ("empty", 0),
        ("short", 11),
        ("one-chunk", CHUNK_SIZE),
        ("one-chunk-and-a-byte", CHUNK_SIZE + 1),
        ("three-chunks", 3 * CHUNK_SIZE),
    ):
        file_vector(name, size)
    good = seal_file(DEK, BUNDLE, PATH, plain("short", 11))
    # The first chunk of a longer file: sealed with the same key, not as the last.
    longer = seal_file(DEK, BUNDLE, PATH, plain("long", CHUNK_SIZE + 1))
    refused_file("cut", good[:-1], "the last byte is missing")
    refused_file("nothing", b"", "no chunk at all")
    refused_file("bit", bytes([good[0] ^ 1]) + good[1:], "one bit")
    refused_file("tail", good + b"\0", "a byte too many")
    refused_file("twice", good + good, "two last chunks")
    refused_file("last-as-first", longer[-17:], "the second chunk of a longer file, alone")
    refused_file("other-path", good, "another path", path="tflite-int8/model.tflite")
    refused_file("other-bundle", good, "another bundle", bundle=OTHER)
    refused_file("other-dek", good, "another key", dek=bytes(32).hex())


def dek_vectors() -> None:
    private = X25519PrivateKey.from_private_bytes(plain("device", 32))
    stranger = X25519PrivateKey.from_private_bytes(plain("stranger", 32))
    sealed = seal_dek(DEK, private.public_key(), fleet="demo", device="pi-1", bundle=BUNDLE)
    body: dict[str, Json] = {
        "private": private.private_bytes_raw().hex(),
        "fleet": "demo",
        "device": "pi-1",
        "bundle": BUNDLE,
        "dek": DEK.raw.hex(),
        "sealed": sealed.hex(),
    }
    changes: tuple[tuple[str, dict[str, Json], str], ...] = (
        ("other-device", {"device": "pi-2"}, "another device's name"),
        ("other-fleet", {"fleet": "demo2"}, "another fleet"),
        ("other-bundle", {"bundle": OTHER}, "another bundle"),
        ("other-key", {"private": stranger.private_bytes_raw().hex()}, "another device's key"),
        ("cut", {"sealed": sealed[:-1].hex()}, "the last byte is missing"),
        ("bit", {"sealed": (sealed[:-1] + bytes([sealed[-1] ^ 128])).hex()}, "one bit"),
        ("no-key", {"sealed": (bytes(32) + sealed[32:]).hex()}, "an encapsulated key of zeros"),
    )
    write("sealed", "dek-good", "ok", canonical.render(body), "for one device and one bundle")
    for name, change, comment in changes:
        write("sealed", f"dek-{name}", REFUSED, canonical.render({**body, **change}), comment)
    shifted: dict[str, Json] = {"fleet": "demo|pi-1", "device": "x"}
    raw = canonical.render({**body, **shifted})
    write("sealed", "dek-name", "malformed", raw, "a name that is none")


def index() -> SealedIndex:
    """Of a bundle with two files."""
    files = []
    for path, size in (("labels.txt", 20), (PATH, CHUNK_SIZE + 1)):
        blob = seal_file(DEK, BUNDLE, path, plain(path, size))
        files.append(SealedFile(path, len(blob), sha256(blob), sha256(chunk_list(blob))))
    return SealedIndex(BUNDLE, tuple(files))


def index_vectors() -> None:
    good = render_index(index())
    write("index", "good", "ok", good, "two files")
    value = canonical.parse(good, what="index")
    assert isinstance(value, dict)
    files = value["files"]
    assert isinstance(files, list)
    first, second = files
    assert isinstance(first, dict)
    changes: tuple[tuple[str, dict[str, Json], str], ...] = (
        ("nothing", {"files": []}, "no file: a bundle has some, but that is not the parser's"),
        ("unsorted", {"files": [second, first]}, "files out of order"),
        ("twice", {"files": [first, first]}, "a path twice"),
        ("path", {"files": [{**first, "path": "../x"}]}, "a path that leads out"),
        ("manifest", {"files": [{**first, "path": "bundle.json"}]}, "the manifest is not sealed"),
        ("size", {"files": [{**first, "size": 15}]}, "less than a tag"),
        ("large", {"files": [{**first, "size": 2**32 + 2**20 + 1}]}, "over 4 GiB, sealed"),
        ("text-size", {"files": [{**first, "size": "36"}]}, "a size as text"),
        ("digest", {"files": [{**first, "sha256": "A" * 64}]}, "a digest in upper case"),
        ("short-digest", {"files": [{**first, "chunk_list_sha256": "a" * 63}]}, "63 digits"),
        ("bundle", {"bundle": "demo"}, "a bundle that is no digest"),
        ("schema", {"schema": "edgefleet.sealed-index/2"}, "an unknown version"),
        ("field", {"dek": DEK.raw.hex()}, "a field that is not known"),
        ("many", {"files": [{**first, "path": f"{n:03}"} for n in range(257)]}, "257 files"),
    )
    for name, change, comment in changes:
        expect = "ok" if name == "nothing" else "malformed"
        write("index", name, expect, canonical.render({**value, **change}), comment)
    without = {name: item for name, item in value.items() if name != "bundle"}
    write("index", "no-bundle", "malformed", canonical.render(without), "a field is missing")
    write("index", "blank", "malformed", good + b" ", "a blank after it")
    write("index", "cut", "malformed", good[:-1], "the end is missing")


if __name__ == "__main__":
    file_vectors()
    dek_vectors()
    index_vectors()
