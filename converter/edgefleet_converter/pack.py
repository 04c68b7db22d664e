"""The bundle directory: files beside it first, one rename at the end.

An existing bundle is never touched: a version is made once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
from edgefleet_converter.scratch import locked_folder


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
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(locked_folder(out, f".{name}."))
        except OSError as error:
            raise OperatorError(f"cannot write to {out}: {error.strerror}") from None
        yield folder


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
