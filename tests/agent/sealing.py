"""What a fleet does to seal a bundle for a device, for tests that have no fleet."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from edgefleet_agent import identity
from edgefleet_agent.unsealing import Unsealer, unsealer_of
from edgefleet_contract import bundle as b
from edgefleet_contract.orders import Sealed, Target
from edgefleet_contract.sealed import Dek, make_dek, seal_dek, seal_file
from edgefleet_contract.sealed_index import SealedFile, SealedIndex, render_index
from tests.contract.makers import target_of

NAMES = {"fleet": "demo", "device": "pi-1"}


@dataclass(frozen=True)
class SealedBundle:
    """A bundle directory, sealed under a DEK: the blobs that would be on the shelf."""

    folder: Path
    dek: Dek
    blobs: dict[str, bytes]
    index: SealedIndex

    @property
    def digest(self) -> b.Digest:
        return self.index.bundle

    def sealed_for(self, key: X25519PublicKey, **names: str) -> Sealed:
        raw = seal_dek(self.dek, key, bundle=self.digest, **{**NAMES, **names})
        return Sealed(base64.b64encode(raw).decode(), b.sha256(render_index(self.index)))

    def target(self, key: X25519PublicKey, **names: str) -> Target:
        return replace(target_of(self.folder), sealed=self.sealed_for(key, **names))


def seal_bundle(folder: Path, dek: Dek | None = None) -> SealedBundle:
    """Seal every file of a bundle directory."""
    dek = dek or make_dek()
    documents = [(folder / name).read_bytes() for name in (b.MANIFEST, b.SIGNATURE)]
    digest = b.sha256(documents[0])
    files, blobs = [], {b.sha256(raw): raw for raw in documents}
    for file in b.parse_manifest(documents[0]).files:
        raw = seal_file(dek, digest, file.path, (folder / file.path).read_bytes())
        table = b.chunk_list(raw)
        blobs |= {b.sha256(raw): raw, b.sha256(table): table}
        files.append(SealedFile(file.path, len(raw), b.sha256(raw), b.sha256(table)))
    index = SealedIndex(digest, tuple(files))
    raw = render_index(index)
    return SealedBundle(folder, dek, {**blobs, b.sha256(raw): raw}, index)


def new_seal_key(folder: Path) -> tuple[X25519PrivateKey, Unsealer]:
    """A device's key below a folder, and what opens with it."""
    key = identity.seal_key(folder)
    return key, unsealer_of(folder / identity.FOLDER / "seal.key", **NAMES)


def plain_in(root: Path, *raws: bytes, size: int = 512) -> list[str]:
    """The files below a folder that hold a piece of some plain bytes.

    Whoever wrote 1 KiB of them in a row wrote one of the pieces that are looked for.
    """
    pieces = [raw[at : at + size] for raw in raws for at in range(0, len(raw) - size + 1, size)]
    assert pieces
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            held = path.read_bytes()
            if any(piece in held for piece in pieces):
                found.append(str(path.relative_to(root)))
    return found
