"""The papers of a bundle on disk, read for `inspect`: strictly, and never more than a cap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgefleet_contract.bundle import Manifest, Role
from edgefleet_contract.canonical import MAX_BYTES
from edgefleet_contract.cards import (
    ModelCard,
    Provenance,
    differing,
    parse_card,
    parse_provenance,
)
from edgefleet_contract.errors import Malformed, OperatorError


@dataclass(frozen=True, slots=True)
class Papers:
    """What a bundle carries; `differing` are the paths of which they and `bundle.json` disagree."""

    card: ModelCard | None
    provenance: Provenance | None
    differing: tuple[str, ...]


def read_papers(root: Path, manifest: Manifest) -> Papers:
    """The papers that a manifest names; one that it does not name is absent.

    Raises:
        OperatorError: a file cannot be read.
        Malformed: it is larger than papers may be, or not what the specification describes.
    """
    card_bytes = _read(root, manifest, Role.SBOM)
    origin_bytes = _read(root, manifest, Role.PROVENANCE)
    card = None if card_bytes is None else parse_card(card_bytes)
    origin = None if origin_bytes is None else parse_provenance(origin_bytes)
    told = (*(card.files if card else ()), *(origin.files if origin else ()))
    return Papers(card, origin, tuple(sorted(set(differing(told, manifest)))))


def _read(root: Path, manifest: Manifest, role: Role) -> bytes | None:
    entry = next((file for file in manifest.files if file.role is role), None)
    if entry is None:
        return None
    path = root / entry.path
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise Malformed(f"{path}: over {MAX_BYTES} bytes, which no {role} is")
    return raw
