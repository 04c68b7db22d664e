"""A bundle on disk as what is shown of it, and a page written beside it, never into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import Manifest, Role, parse_manifest, sha256
from edgefleet_contract.canonical import Json
from edgefleet_contract.directory import read_documents, verify_directory
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing
from edgefleet_converter.page import Shown, render_page
from edgefleet_converter.papers import read_papers
from edgefleet_converter.scratch import write_whole

MAX_REPORT: Final = 16 * 1024 * 1024
_MAX_LABELS: Final = 4 * 1024 * 1024


def read_shown(root: Path, ring: KeyRing | None) -> Shown:
    """What a page shows of a bundle, with its signature and files checked where there is a ring.

    Raises:
        OperatorError: it cannot be read.
        PeerError: no trusted key signed it, or its documents are not what they must be.
    """
    if ring is None:
        raw, _ = read_documents(root)
        manifest, digest, signer = parse_manifest(raw), sha256(raw), None
    else:
        found = verify_directory(root, ring)
        manifest, digest, signer = found.manifest, found.digest, found.signer
    return Shown(
        manifest=manifest,
        digest=digest,
        report=read_report(root, manifest),
        papers=read_papers(root, manifest),
        labels=_labels(root, manifest),
        signer=signer,
    )


def read_report(root: Path, manifest: Manifest) -> Json:
    """The bundle's `report.json`; None where there is none that can be read."""
    entry = next((file for file in manifest.files if file.role is Role.REPORT), None)
    if entry is None:
        return None
    try:
        value: Json = json.loads(_head(root / entry.path, MAX_REPORT))
    except (OSError, ValueError, RecursionError):
        return None
    return value


def write_page(path: Path, shown: Shown, *, bundle: Path) -> None:
    """Write the page whole or not at all. A page that is there is replaced.

    Raises:
        OperatorError: it cannot be written, or would lie in the bundle, which then were no bundle.
    """
    check_place(path, bundle)
    write_file(path, render_page(shown))


def write_file(path: Path, raw: bytes) -> None:
    """Write a file whole or not at all. One that is there is replaced.

    Raises:
        OperatorError: it cannot be written.
    """
    try:
        write_whole(path, raw)
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror}") from None


def check_place(path: Path, bundle: Path | None = None) -> None:
    """Refuse a place for a page that is in the bundle, or in no folder.

    Raises:
        OperatorError: saying which.
    """
    place = path.resolve()
    if bundle is not None and place.is_relative_to(bundle.resolve()):
        raise OperatorError(
            f"{path} lies in the bundle, which holds its signed files and nothing else",
            hint="write the page beside it",
        )
    if not place.parent.is_dir():
        raise OperatorError(f"cannot write {path}: there is no folder {place.parent}")
    if place.is_dir():
        raise OperatorError(f"cannot write {path}: it is a folder")


def _labels(root: Path, manifest: Manifest) -> tuple[str, ...]:
    if manifest.labels is None:
        return ()
    try:
        return tuple(_head(root / manifest.labels, _MAX_LABELS).decode("utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return ()


def _head(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most)
