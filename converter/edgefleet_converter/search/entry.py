"""A result in one file: what a worker said, and the files that it made. A ZIP with checksums."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgefleet_contract.canonical import Json

_SAID: Final = "said.json"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """What was said, and files by name."""

    said: dict[str, Json]
    files: dict[str, bytes] = field(default_factory=dict)


def write_entry(path: Path, said: Mapping[str, Json], files: Mapping[str, bytes]) -> None:
    """Write an entry; the same content gives the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, raw in {_SAID: json.dumps(said, sort_keys=True).encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=_EPOCH), raw)


def read_entry(path: Path) -> Entry | None:
    """The entry in a file; None where there is none, or a broken one."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        return Entry(json.loads(files.pop(_SAID)), files)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return None
