"""Which sealed blobs the files of a bundle are: what a device fetches instead [bundle-7.8].

`bundle.json` names plain bytes; the index names, path by path, the sealed bytes that are on the
shelf. An order names the index by digest, so a director vouches for it, as it does for the rest of
the order. It vouches for nothing more: what was opened is held against `bundle.json`.

Law: `parse_index(render_index(i)) == i`; `render_index(parse_index(raw)) == raw`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.bundle import (
    CHUNK_SIZE,
    MANIFEST,
    MAX_FILE_SIZE,
    MAX_FILES,
    SIGNATURE,
    Digest,
    Manifest,
    is_digest,
    is_safe_path,
)
from edgefleet_contract.errors import Malformed, PeerError
from edgefleet_contract.reasons import Reason
from edgefleet_contract.sealed import TAG_SIZE, sealed_size

SCHEMA: Final = "edgefleet.sealed-index/1"
_LARGEST: Final = sealed_size(MAX_FILE_SIZE)


@dataclass(frozen=True, slots=True)
class SealedFile:
    """The sealed bytes of one file: `path` is that in the bundle, the digests are of the blob."""

    path: str
    size: int
    sha256: Digest
    chunk_list_sha256: Digest

    def chunks(self) -> int:
        """How many chunks its chunk list names: 64 KiB each, as of every blob."""
        return -(-self.size // CHUNK_SIZE)


@dataclass(frozen=True, slots=True)
class SealedIndex:
    """The sealed files of the bundle whose `bundle.json` has the digest `bundle`."""

    bundle: Digest
    files: tuple[SealedFile, ...]
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_digest(self.bundle):
            raise Malformed("the bundle is not 64 lower-case hex digits")
        if len(self.files) > MAX_FILES:
            raise Malformed(f"{len(self.files)} files, at most {MAX_FILES} are read")
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            raise Malformed("files are not sorted by path, or a path stands twice")
        for file in self.files:
            _check_file(file)

    def file(self, path: str) -> SealedFile:
        """The entry of a path that the index names."""
        return next(file for file in self.files if file.path == path)


def parse_index(raw: bytes, *, what: str = "sealed index") -> SealedIndex:
    """The index in canonical bytes.

    Raises:
        Malformed: naming the field and what was found there.
    """
    value = canonical.parse(raw, what=what)
    if isinstance(value, dict) and value.get("schema") != SCHEMA:
        raise Malformed(f"{what}: schema {str(value.get('schema'))[:60]!r}, {SCHEMA!r} is read")
    return codec.decode(SealedIndex, value, what=what)


def render_index(index: SealedIndex) -> bytes:
    """The canonical bytes of an index."""
    return canonical.render(codec.encode(index))


def check_index(index: SealedIndex, bundle: Digest, manifest: Manifest, *, what: str) -> None:
    """Nothing, if an index names exactly the files of a bundle, in the sizes that sealing gives.

    Raises:
        PeerError: BUNDLE_MISMATCH, naming what differs.
    """
    found = {file.path: file.size for file in index.files}
    wanted = {file.path: sealed_size(file.size) for file in manifest.files}
    if index.bundle != bundle:
        differs = f"is of bundle {index.bundle[:12]}, not {bundle[:12]}"
    elif found != wanted:
        path = min(path for path in found | wanted if found.get(path) != wanted.get(path))
        differs = f"{path}: {found.get(path)} bytes, sealed it has {wanted.get(path)}"
    else:
        return
    raise PeerError(f"{what}: {differs}", reason=Reason.BUNDLE_MISMATCH)


def _check_file(file: SealedFile) -> None:
    if not is_safe_path(file.path) or file.path in (MANIFEST, SIGNATURE):
        raise Malformed(f"path {file.path[:80]!r} is not allowed")
    if not TAG_SIZE <= file.size <= _LARGEST:
        raise Malformed(f"{file.path}: size {file.size}")
    if not is_digest(file.sha256) or not is_digest(file.chunk_list_sha256):
        raise Malformed(f"{file.path}: a digest is not 64 lower-case hex digits")
