"""A bundle as a directory on disk: is it whole, untouched, and signed by someone we trust?

Nothing is believed that is not in `bundle.json`: an extra file, a link, a file with a second name
or a missing one refuses the directory. What is not a plain file is not opened, folders are not
followed deeper than a path may go, and no file is read past its signed size, so a directory that
somebody prepared costs no more than an honest one.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from edgefleet_contract.bundle import (
    CHUNK_SIZE,
    MANIFEST,
    SIGNATURE,
    BundleFile,
    Manifest,
)
from edgefleet_contract.canonical import MAX_BYTES
from edgefleet_contract.errors import Malformed, OperatorError, Unverified
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.model_signature import MAX_BYTES as MAX_SIGNATURE_BYTES
from edgefleet_contract.model_signature import VerifiedBundle, open_bundle
from edgefleet_contract.reasons import Reason

MAX_DEPTH: Final = 3
"""Components of a path [bundle-3.1]."""


def read_documents(root: Path) -> tuple[bytes, bytes]:
    """The bytes of `bundle.json` and `model.sig`.

    Raises:
        OperatorError: `root` is not a bundle directory, or cannot be read.
        Malformed: one of them is too large to be one.
        Unverified: BUNDLE_MISMATCH where one is not a plain file with one name.
    """
    found = []
    for name, most in ((MANIFEST, MAX_BYTES), (SIGNATURE, MAX_SIGNATURE_BYTES)):
        with _open_plain(root, name) as stream:
            raw = stream.read(most + 1)
        if len(raw) > most:
            raise Malformed(f"{root / name}: more than the {most} bytes that are read")
        found.append(raw)
    return found[0], found[1]


def verify_directory(root: Path, ring: KeyRing) -> VerifiedBundle:
    """The bundle in a directory, if a key of `ring` signed it and every file is as signed.

    Raises:
        OperatorError: `root` cannot be read.
        Malformed: a document is not what the specification describes.
        Unverified: UNKNOWN_KEY, BAD_SIGNATURE, BUNDLE_MISMATCH, or DIGEST_MISMATCH with the path.
    """
    manifest_bytes, signature_bytes = read_documents(root)
    bundle = open_bundle(manifest_bytes, signature_bytes, ring)
    check_files(root, bundle.manifest)
    return bundle


def check_files(root: Path, manifest: Manifest) -> None:
    """Hold the files of a directory against its manifest, in both directions.

    Raises:
        Unverified: BUNDLE_MISMATCH for a file too many, too few or of another kind;
            DIGEST_MISMATCH for one whose bytes differ.
    """
    expected = {file.path for file in manifest.files} | {MANIFEST, SIGNATURE}
    found = set()
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        if name not in expected:
            raise _mismatch(root, f"{ascii(name)[:200]} is not in bundle.json")
        found.add(name)
    if found != expected:
        raise _mismatch(root, f"{min(expected - found)} is missing")
    for file in manifest.files:
        _check_file(root, file)


def _files(root: Path) -> Iterator[Path]:
    """Everything below a directory that is not a folder."""
    folders = [root]
    while folders:
        folder = folders.pop()
        if len(folder.relative_to(root).parts) >= MAX_DEPTH:
            raise _mismatch(root, f"folders are nested {MAX_DEPTH} deep or deeper")
        try:
            inside = sorted(folder.iterdir())
        except OSError as error:
            raise OperatorError(f"cannot read {folder}: {error.strerror}") from None
        for path in inside:
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            else:
                yield path


def _check_file(root: Path, file: BundleFile) -> None:
    whole, chunks, size = hashlib.sha256(), hashlib.sha256(), 0
    with _open_plain(root, file.path) as stream:
        is_long = os.fstat(stream.fileno()).st_size != file.size
        while not is_long and (chunk := stream.read(CHUNK_SIZE)):
            size += len(chunk)
            is_long = size > file.size
            whole.update(chunk)
            chunks.update(hashlib.sha256(chunk).digest())
    digests = (whole.hexdigest(), chunks.hexdigest(), size)
    if digests != (file.sha256, file.chunk_list_sha256, file.size):
        raise Unverified(
            f"{root.name}: {file.path} is not the file that was signed",
            reason=Reason.DIGEST_MISMATCH,
        )


@contextmanager
def _open_plain(root: Path, name: str) -> Iterator[BinaryIO]:
    """A file that is plain and has one name; opening a pipe or a device neither waits nor reads."""
    path = root / name
    try:
        if stat.S_ISLNK(path.lstat().st_mode):
            raise _mismatch(root, f"{name} is not a plain file with one name")
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(
            f"cannot read {path}: {error.strerror}", hint="give the directory of a bundle"
        ) from None
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
        os.close(fd)
        raise _mismatch(root, f"{name} is not a plain file with one name")
    with os.fdopen(fd, "rb") as stream:
        yield stream


def _mismatch(root: Path, found: str) -> Unverified:
    return Unverified(f"{root.name}: {found}", reason=Reason.BUNDLE_MISMATCH)
