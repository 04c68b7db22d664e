"""A JSON file for each result, in a folder where the oldest give way: for use without a broker."""

from __future__ import annotations

from pathlib import Path

from edgefleet_agent.sources import documents
from edgefleet_agent.sources.options import FolderSinkOptions
from edgefleet_agent.sources.plugin import Answer, Setup
from edgefleet_contract import codec
from edgefleet_contract.errors import OperatorError


def available() -> str:
    """A folder is always there to be had."""
    return ""


def open(setup: Setup) -> FolderSink:  # noqa: A001  # the word of the Protocol
    """The folder, made if it is missing.

    Raises:
        OperatorError: it cannot be made.
    """
    options = codec.decode(FolderSinkOptions, dict(setup.options), what=setup.name)
    folder = setup.base / options.path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            f"{setup.name}: cannot make {folder}: {error.strerror}",
            hint="choose a path that the agent may write",
        ) from None
    return FolderSink(folder, options.keep, setup.name)


class FolderSink:
    """See above. Names begin with the source and sort by time; several sources may share it."""

    def __init__(self, folder: Path, keep: int, name: str) -> None:
        self._folder, self._keep, self._name = folder, keep, name
        self._present = sorted(path.name for path in folder.glob(f"{name}@*.json"))

    def send(self, answer: Answer, cause: str) -> None:
        """Write it, then remove what is too old."""
        stem = f"{self._name}@{answer.ts:015d}"
        name = f"{stem}.json"
        number = 1
        while (
            self._present and name <= self._present[-1]
        ):  # of one millisecond, or a clock set back
            number += 1
            stem = self._present[-1].removesuffix(".json").partition("+")[0]
            name = f"{stem}+{number:06d}.json"
        documents.write(self._folder / name, documents.document(answer, cause=cause))
        self._present.append(name)
        while len(self._present) > self._keep:
            (self._folder / self._present.pop(0)).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is open."""
