"""A bundle as a directory on disk: is it whole, untouched, and signed by someone we trust?

Nothing is believed that is not in `bundle.json`: an extra file, a link, a file with a second name
or a missing one refuses the directory.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

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


def read_documents(root: Path) -> tuple[bytes, bytes]:
    """The bytes of `bundle.json` and `model.sig`.

    Raises:
        OperatorError: `root` is not a bundle directory, or cannot be read.
        Malformed: one of them is too large to be one.
    """
    found = []
    for name, most in ((MANIFEST, MAX_BYTES), (SIGNATURE, MAX_SIGNATURE_BYTES)):
        path = root / name
        try:
            if path.stat().st_size > most:
                raise Malformed(f"{path}: {path.stat().st_size} bytes, at most {most} are read")
            found.append(path.read_bytes())
        except OSError as error:
            raise OperatorError(
                f"cannot read {path}: {error.strerror}", hint="give the directory of a bundle"
            ) from None
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
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            continue
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise _mismatch(root, f"{name} is not a plain file with one name")
        found.add(name)
    if found != expected:
        odd = min(found ^ expected)
        word = "is missing" if odd in expected else "is not in bundle.json"
        raise _mismatch(root, f"{odd} {word}")
    for file in manifest.files:
        _check_file(root, file)


def _check_file(root: Path, file: BundleFile) -> None:
    whole, chunks, size = hashlib.sha256(), hashlib.sha256(), 0
    with (root / file.path).open("rb") as stream:
        while chunk := stream.read(CHUNK_SIZE):
            size += len(chunk)
            whole.update(chunk)
            chunks.update(hashlib.sha256(chunk).digest())
    digests = (whole.hexdigest(), chunks.hexdigest(), size)
    if digests != (file.sha256, file.chunk_list_sha256, file.size):
        raise Unverified(
            f"{root.name}: {file.path} is not the file that was signed",
            reason=Reason.DIGEST_MISMATCH,
        )


def _mismatch(root: Path, found: str) -> Unverified:
    return Unverified(f"{root.name}: {found}", reason=Reason.BUNDLE_MISMATCH)
