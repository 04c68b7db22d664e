"""What the functions of `api` give that have no home of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet_contract.bundle import Digest, Manifest
from edgefleet_contract.canonical import Json
from edgefleet_converter.papers import Papers

if TYPE_CHECKING:
    from edgefleet_converter.comparing import Comparison
    from edgefleet_converter.transfer_size import Cost


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a bundle says. `report` is its `report.json`, None where there is none."""

    manifest: Manifest
    digest: Digest
    report: Json
    papers: Papers


@dataclass(frozen=True, slots=True)
class Difference:
    """Two bundles, what differs, and the bytes to send for each file, about, by its path."""

    old: Manifest
    new: Manifest
    found: Comparison
    costs: dict[str, Cost]


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder that was made, and the names of the files in it."""

    path: Path
    files: tuple[str, ...]
