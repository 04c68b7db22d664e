"""Every vector is read as its header says."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgefleet_contract import bundle, canonical, messages, sealed, sealed_index
from edgefleet_contract.blocks import Block
from edgefleet_contract.errors import PeerError
from edgefleet_contract.keys import KeyRing, PublicKey
from edgefleet_contract.model_signature import open_bundle
from tests.contract import deltas

ROOT = Path(__file__).parents[1] / "vectors"


def ring(name: str) -> KeyRing:
    return KeyRing([PublicKey.from_pem((ROOT / "keys" / f"{name}.pub.pem").read_text())])


def read_canonical(body: bytes) -> bytes:
    return canonical.render(canonical.parse(body, what="vector"))


def read_manifest(body: bytes) -> bytes:
    return bundle.render_manifest(bundle.parse_manifest(body))


def read_order(body: bytes) -> bytes:
    assert messages.open_order(body, ring("director")).device == "pi-1"
    return body


def read_signature(body: bytes) -> bytes:
    manifest = (ROOT / "signature" / "bundle.json").read_bytes()
    assert open_bundle(manifest, body, ring("publisher")).manifest.name == "digits-3"
    return body


def read_sealed(body: bytes) -> bytes:
    """A file is opened and sealed again; a key for a device is opened."""
    told = canonical.parse(body, what="vector")
    assert isinstance(told, dict)
    text = {name: str(value) for name, value in told.items()}
    dek, bundle_digest = sealed.Dek(bytes.fromhex(text["dek"])), bundle.Digest(text["bundle"])
    if "private" in told:
        private = X25519PrivateKey.from_private_bytes(bytes.fromhex(text["private"]))
        names = {"fleet": text["fleet"], "device": text["device"], "bundle": bundle_digest}
        assert sealed.open_dek(bytes.fromhex(text["sealed"]), private, **names) == dek
        return body
    raw = hashlib.shake_256(text["seed"].encode()).digest(int(text["size"]))
    again = sealed.seal_file(dek, bundle_digest, text["path"], raw)
    given = bytes.fromhex(text["sealed"]) if "sealed" in told else again
    assert sealed.open_file(dek, bundle_digest, text["path"], given) == raw
    assert again == given
    assert bundle.sha256(again) == text.get("sealed_sha256", bundle.sha256(given))
    return body


def read_block(body: bytes) -> bytes:
    return Block.parse(body).render()


def read_index(body: bytes) -> bytes:
    return sealed_index.render_index(sealed_index.parse_index(body))


def read_delta(body: bytes) -> bytes:
    told = canonical.parse(body, what="vector")
    assert isinstance(told, dict)
    text = {name: str(value) for name, value in told.items()}
    old = deltas.noise(text["old_seed"], int(text["old_size"]))
    new, size = bundle.Digest(text["new"]), int(text["new_size"])
    assert bundle.sha256(deltas.read(base64.b64decode(text["delta"]), old, new, size)) == new
    return body


READERS: dict[str, Callable[[bytes], bytes]] = {
    "block": read_block,
    "canonical": read_canonical,
    "delta": read_delta,
    "index": read_index,
    "manifest": read_manifest,
    "order": read_order,
    "sealed": read_sealed,
    "signature": read_signature,
}
VECTORS = sorted(ROOT.glob("*/*.vector"))


def test_there_are_vectors_of_every_kind() -> None:
    assert {path.parent.name for path in VECTORS} == set(READERS)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_vector_is_read_as_its_header_says(path: Path) -> None:
    header, _, body = path.read_bytes().partition(b"\n\n")
    expect = header.decode().splitlines()[0].removeprefix("expect: ")
    read = READERS[path.parent.name]
    if expect == "ok":
        assert read(body) == body
    else:
        with pytest.raises(PeerError) as caught:
            read(body)
        assert caught.value.reason == expect
