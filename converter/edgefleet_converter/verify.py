"""Whether a bundle directory is, byte for byte, what a publisher signed.

The signature first, then every file: regular, one link, the signed size and digest; and nothing in
the directory beside them. Needs `cryptography` alone.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import MANIFEST, SIGNATURE, Manifest, is_safe_path
from edgefleet_contract.bundle import chunk_list as list_chunks
from edgefleet_contract.bundle import sha256 as digest
from edgefleet_contract.canonical import MAX_BYTES as MANIFEST_BYTES
from edgefleet_contract.errors import OperatorError, Unverified
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.model_signature import MAX_BYTES as SIGNATURE_BYTES
from edgefleet_contract.model_signature import VerifiedBundle, open_bundle
from edgefleet_contract.reasons import Reason

_DEPTH: Final = 3


def verify_directory(folder: Path, ring: KeyRing) -> VerifiedBundle:
    """The bundle in a directory, verified whole.

    Raises:
        OperatorError: there is no bundle, or it cannot be read.
        Malformed: `bundle.json` or `model.sig` is not what the specification describes.
        Unverified: UNKNOWN_KEY, BAD_SIGNATURE, BUNDLE_MISMATCH, DIGEST_MISMATCH or NOT_FOUND.
    """
    manifest_bytes = read_document(folder, MANIFEST, MANIFEST_BYTES)
    signature = read_document(folder, SIGNATURE, SIGNATURE_BYTES)
    bundle = open_bundle(manifest_bytes, signature, ring)
    check_contents(folder, bundle.manifest)
    return bundle


def read_document(folder: Path, name: str, limit: int) -> bytes:
    """One of the two documents of a bundle; one byte more than the limit at most.

    Raises:
        OperatorError: it is missing or cannot be read.
        Unverified: it is a link.
    """
    path = folder / name
    try:
        _refuse_special(path.lstat(), name)
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        raise OperatorError(
            f"{folder} is not a bundle: it has no {name}",
            hint="a bundle is the directory <model>-<version> that `edge-convert build` writes",
        ) from None
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None


def check_contents(folder: Path, manifest: Manifest) -> None:
    """Hold the files of a directory against a manifest.

    Raises:
        OperatorError: a file cannot be read.
        Unverified: BUNDLE_MISMATCH for a file too many, a link or a device; NOT_FOUND for one too
            few; DIGEST_MISMATCH for other bytes.
    """
    wanted = {file.path: file for file in manifest.files}
    present = set(_walk(folder))
    extra = sorted(present - set(wanted) - {MANIFEST, SIGNATURE})
    if extra:
        raise Unverified(
            f"{folder.name}: {extra[0]!r} is not in the manifest", reason=Reason.BUNDLE_MISMATCH
        )
    for path, file in wanted.items():
        if path not in present:
            raise Unverified(f"{folder.name}: {path} is missing", reason=Reason.NOT_FOUND)
        try:
            size = (folder / path).stat().st_size
            raw = (folder / path).read_bytes() if size == file.size else b""
        except OSError as error:
            raise OperatorError(f"cannot read {folder / path}: {error.strerror}") from None
        if size != file.size:
            raise Unverified(
                f"{folder.name}: {path} has {size} bytes, {file.size} were signed",
                reason=Reason.DIGEST_MISMATCH,
            )
        if digest(raw) != file.sha256 or digest(list_chunks(raw)) != file.chunk_list_sha256:
            raise Unverified(
                f"{folder.name}: the bytes of {path} are not those that were signed",
                reason=Reason.DIGEST_MISMATCH,
            )


def _walk(folder: Path) -> list[str]:
    """Relative paths of all files; anything but plain files and folders is refused."""
    found: list[str] = []
    todo = [(folder, "")]
    while todo:
        directory, prefix = todo.pop()
        try:
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if path.count("/") >= _DEPTH - 1 or not is_safe_path(path):
                            raise Unverified(
                                f"{folder.name}: folder {path[:80]!r} has no place in a bundle",
                                reason=Reason.BUNDLE_MISMATCH,
                            )
                        todo.append((Path(entry.path), f"{path}/"))
                        continue
                    _refuse_special(entry.stat(follow_symlinks=False), path)
                    found.append(path)
        except OSError as error:
            raise OperatorError(f"cannot read {directory}: {error.strerror}") from None
    return found


def _refuse_special(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unverified(f"{path[:80]!r} is not a regular file", reason=Reason.BUNDLE_MISMATCH)
    if status.st_nlink != 1:
        raise Unverified(
            f"{path[:80]!r} has {status.st_nlink} links, one is allowed",
            reason=Reason.BUNDLE_MISMATCH,
        )
