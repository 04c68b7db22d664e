"""`fleet push-model`: reads a bundle directory, checks it, uploads what the shelf lacks."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from edgefleet_contract.bundle import MANIFEST, SIGNATURE, Manifest, parse_manifest, sha256
from edgefleet_contract.errors import Malformed, OperatorError, TransientError
from edgefleet_contract.reasons import Reason
from edgefleet_fleet.client import Client
from edgefleet_fleet.errors import Conflict

_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class BundleDir:
    """A bundle directory whose manifest was read; nothing in it is verified by that."""

    root: Path
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """The identity of the bundle."""
        return sha256(self.manifest_bytes)

    @property
    def signature_sha256(self) -> str:
        """The digest of `model.sig`."""
        return sha256(self.signature)


def read_bundle(root: Path) -> BundleDir:
    """The bundle in a directory.

    Raises:
        OperatorError: it is not a bundle directory.
        Malformed: its manifest is not valid.
    """
    if not root.is_dir():
        raise OperatorError(
            f"{root} is not a directory", hint="a bundle is one: edge-convert build"
        )
    found: list[bytes] = []
    for name in (MANIFEST, SIGNATURE):
        try:
            found.append((root / name).read_bytes())
        except OSError as error:
            hint = "sign it first: edge-convert build" if name == SIGNATURE else ""
            raise OperatorError(f"{root / name}: {error.strerror}", hint=hint) from None
    manifest = parse_manifest(found[0], what=str(root / MANIFEST))
    return BundleDir(root, manifest, found[0], found[1])


def check_files(bundle: BundleDir) -> None:
    """Hold every file against the manifest.

    Raises:
        OperatorError: a file is missing.
        Malformed: DIGEST_MISMATCH, naming the file.
    """
    for entry in bundle.manifest.files:
        path = bundle.root / entry.path
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise OperatorError(f"{path}: {error.strerror}") from None
        if found != entry.sha256 or path.stat().st_size != entry.size:
            raise Malformed(
                f"{path}: its bytes are not those that {MANIFEST} names",
                reason=Reason.DIGEST_MISMATCH,
                hint="build the bundle again; a bundle is never edited",
            )


def upload(
    client: Client, bundle: BundleDir, *, check: bool, progress: Callable[[str, int, int], None]
) -> Any:
    """Bring a bundle to the control room; its view there.

    What broke off goes on where it ended, now or at the next call. `progress` hears a path, how
    many of its bytes are there, and how many it has.
    """
    answer = client.post(
        "/bundles",
        {
            "manifest": base64.b64encode(bundle.manifest_bytes).decode(),
            "signature": base64.b64encode(bundle.signature).decode(),
            "check": check,
        },
    )
    for blob in answer["missing"]:
        _send(client, bundle.root / blob["path"], blob, progress)
    return client.post(
        f"/bundles/{bundle.digest}/complete", {"signature_sha256": bundle.signature_sha256}
    )


def _send(client: Client, file: Path, blob: Any, progress: Callable[[str, int, int], None]) -> None:
    for tries in count(1):
        try:
            there = client.get(f"/blobs/{blob['sha256']}/upload")["offset"]

            def sent(more: int) -> None:
                nonlocal there
                there += more
                progress(blob["path"], there, blob["size"])

            progress(blob["path"], there, blob["size"])
            client.put_file(f"/blobs/{blob['sha256']}", file, offset=there, sent=sent)
        except (TransientError, Conflict):
            if tries == _TRIES:
                raise
            time.sleep(2**tries)
        else:
            return
