"""Results by the digest of all that they follow from: a run that was interrupted goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench._anchors import Made


def digest_of(*parts: Any) -> str:
    """Of bytes, arrays, files (their content) and whatever JSON can say."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            raw = part.read_bytes()
        elif isinstance(part, np.ndarray):
            raw = str((part.dtype, part.shape)).encode() + np.ascontiguousarray(part).tobytes()
        elif isinstance(part, bytes):
            raw = part
        else:
            raw = json.dumps(part, sort_keys=True).encode()
        found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of results."""

    folder: Path

    def made(self, key: str) -> Made | None:
        """An int8 file that was made before."""
        said = self.said(key)
        if said is None:
            return None
        model = self.folder / f"{key}.int8"
        return Made(**said, model=model.read_bytes() if model.exists() else b"")

    def keep(self, key: str, made: Made) -> None:
        """For the next run."""
        said = asdict(made)
        model = said.pop("model")
        self.folder.mkdir(parents=True, exist_ok=True)
        if model:
            (self.folder / f"{key}.int8").write_bytes(model)
        self.say(key, said)

    def said(self, key: str) -> Any:
        """JSON that was kept, or None."""
        path = self.folder / f"{key}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def say(self, key: str, value: Any) -> None:
        """Keep JSON."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f"{key}.new"
        new.write_text(json.dumps(value))
        new.rename(self.folder / f"{key}.json")
