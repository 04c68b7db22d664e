"""What a bundle's papers say, for the API and the page: its model card and where it comes from.

Papers are whatever a publisher packed: they are read by the contract's parsers, which refuse what
would act on a reader, and are shown as text only. Papers that are missing are None; papers that
cannot be read, or that speak of other files than those beside them, are said in `problems`. Nothing
here decides anything: devices do not look at papers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from edgefleet_contract.bundle import Role
from edgefleet_contract.cards import FileDigest, parse_card, parse_provenance
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_fleet.ports import Shelf
from edgefleet_fleet.records import BundleFile

MAX_BYTES: Final = 1024 * 1024
P = TypeVar("P")


def papers(files: Sequence[BundleFile], shelf: Shelf) -> dict[str, Any]:
    """`card`, `provenance` (each None where there is none to show) and `problems`."""
    problems: list[str] = []
    card = _read(files, shelf, Role.SBOM, parse_card, problems)
    origin = _read(files, shelf, Role.PROVENANCE, parse_provenance, problems)
    for what, paper in (("the model card", card), ("the provenance", origin)):
        if paper is not None:
            problems += [f"{what} speaks of another {path}" for path in _other(paper.files, files)]
    return {
        "card": dataclasses.asdict(card) if card is not None else None,
        "provenance": _origin(origin) if origin is not None else None,
        "problems": problems,
    }


def _origin(origin: Any) -> dict[str, Any]:
    source = origin.source
    return dataclasses.asdict(origin) | {"source_sha256": source.sha256 if source else None}


def _read(
    files: Sequence[BundleFile],
    shelf: Shelf,
    role: Role,
    parse: Callable[[bytes], P],
    problems: list[str],
) -> P | None:
    file = next((file for file in files if file.role is role), None)
    if file is None or not shelf.has(file.sha256):
        return None
    if file.size > MAX_BYTES:
        problems.append(f"{file.path}: too large to be shown")
        return None
    try:
        return parse(b"".join(shelf.read(file.sha256)))
    except (Malformed, OperatorError) as error:
        problems.append(f"{file.path} cannot be read: {error.message}")
        return None


def _other(said: tuple[FileDigest, ...], files: Sequence[BundleFile]) -> list[str]:
    """The paths that are said with another digest than the bundle's, or are not in it."""
    held = {file.path: file.sha256 for file in files}
    return [file.path for file in said if held.get(file.path) != file.sha256]
