"""The bundle directory: files beside it first, one rename at the end.

An existing bundle is never touched: a version is made once.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import (
    MANIFEST,
    SIGNATURE,
    BundleFile,
    Manifest,
    Role,
    describe_file,
    render_manifest,
)
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import Signer
from edgefleet_contract.model_signature import sign_bundle

_YOUNG_S: Final = 10


def refuse_existing(path: Path) -> None:
    """Refuse to build what exists.

    Raises:
        OperatorError: naming it.
    """
    if path.exists() or path.is_symlink():
        raise OperatorError(
            f"{path} exists already",
            hint="a version is made once: choose the next --version, or another --out",
        )


@contextmanager
def staging(out: Path, name: str) -> Iterator[Path]:
    """A folder beside the bundle-to-be; it is gone afterwards unless it was finished.

    Whoever works in one has it locked: what a killed program left is found by that, and removed.

    Raises:
        OperatorError: `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _sweep(out, name)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=out))
    except OSError as error:
        raise OperatorError(f"cannot write to {out}: {error.strerror}") from None
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(out: Path, name: str) -> None:
    """Remove the folders of this bundle in which nobody works."""
    for left in out.glob(f".{glob.escape(name)}.*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if time.time() - os.fstat(lock).st_mtime < _YOUNG_S:
                continue  # it may have been made, and not locked yet
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # somebody works in it
        finally:
            os.close(lock)


def describe_files(folder: Path, roles: dict[str, Role]) -> tuple[BundleFile, ...]:
    """The entries of the files of a bundle, sorted as the manifest wants them."""
    return tuple(describe_file(folder, path, roles[path]) for path in sorted(roles))


def finish(folder: Path, manifest: Manifest, key: Signer, target: Path) -> Path:
    """Write manifest and signature, make everything durable, and give the folder its name.

    Raises:
        OperatorError: the target came into being meanwhile, or the disk failed.
    """
    raw = render_manifest(manifest)
    try:
        (folder / MANIFEST).write_bytes(raw)
        (folder / SIGNATURE).write_bytes(sign_bundle(raw, key))
        folder.chmod(0o755)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.chmod(0o755 if path.is_dir() else 0o644)
            _fsync(path)
        _fsync(folder)
        refuse_existing(target)
        folder.rename(target)
        _fsync(target.parent)
    except OSError as error:
        raise OperatorError(f"cannot write {target}: {error.strerror}") from None
    return target


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
