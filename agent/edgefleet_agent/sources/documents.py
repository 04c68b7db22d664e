"""An answer as JSON: what the folders get, one document a file."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from edgefleet_agent.runtime.engine import Array
from edgefleet_agent.sources.plugin import Answer


def document(answer: Answer, **more: object) -> dict[str, Any]:
    """What an answer says, as a JSON value; NaN and infinity are null."""
    return {
        "source": answer.source,
        "model": answer.slot,
        "version": answer.version,
        "ts": answer.ts,
        "outputs": {name: plain(array) for name, array in answer.outputs.items()},
        "tops": list(answer.tops),
        "metadata": dict(answer.metadata),
        **more,
    }


def plain(array: Array) -> Any:
    """The values of an array, nested as its shape says."""
    return _finite(array.tolist())


def write(path: Path, value: object) -> None:
    """A JSON file that is there whole or not at all, also after a power cut."""
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else value
