"""Digest and size of what goes into a build: of a file, or of all files of a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import Digest
from edgefleet_converter.report import DataFile

_CHUNK: Final = 1 << 20


def describe(path: Path) -> DataFile:
    """Of a folder, the digest is that of the lines `<sha256>  <path>` in the order of the paths."""
    if not path.is_dir():
        return _file(path)
    listing, size = hashlib.sha256(), 0
    for inner in sorted(inner for inner in path.rglob("*") if inner.is_file()):
        found = _file(inner)
        size += found.size
        listing.update(f"{found.sha256}  {inner.relative_to(path).as_posix()}\n".encode())
    return DataFile(Digest(listing.hexdigest()), size)


def _file(path: Path) -> DataFile:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return DataFile(Digest(digest.hexdigest()), size)
