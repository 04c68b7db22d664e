"""One variant of a bundle as plain files for use without edgefleet: model, labels, a README."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from edgefleet_contract.bundle import Manifest, Variant, parse_manifest
from edgefleet_contract.directory import check_files, read_documents, verify_directory
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing
from edgefleet_converter.bench import Progress
from edgefleet_converter.export_readme import render_readme
from edgefleet_converter.pack import refuse_existing, staging
from edgefleet_converter.papers import read_papers

README: Final = "README.md"


def export(
    root: Path,
    variant: str,
    out: Path,
    ring: KeyRing | None,
    progress: Progress = lambda _: None,
) -> tuple[str, ...]:
    """Write a variant to the new folder `out`; the files in it.

    Files keep their last names; where two would have one, they keep their folders. The files are
    those that `bundle.json` names, by their digests; with a ring, a trusted key signed them.

    Raises:
        OperatorError: there is no such variant, `out` exists, or a file cannot be read or written.
        PeerError: the bundle is not what it says or, with a ring, not what was signed.
    """
    progress("checking the files")
    if ring is None:
        manifest = parse_manifest(read_documents(root)[0])
        check_files(root, manifest)
    else:
        manifest = verify_directory(root, ring).manifest
    chosen = _find(manifest, variant)
    refuse_existing(out)
    if out.resolve().is_relative_to(root.resolve()):
        raise OperatorError(f"{out} lies in the bundle", hint="write the files beside it")
    places = place_names([file.path for file in manifest.files_for(chosen)])
    with staging(out.parent, out.name) as folder:
        for path, place in places.items():
            progress(f"writing {place}")
            _copy(root / path, folder / place, manifest.file(path).sha256)
        told = render_readme(manifest, chosen, places, read_papers(root, manifest).card)
        (folder / README).write_text(told, "utf-8")
        folder.chmod(0o755)
        refuse_existing(out)
        folder.rename(out)
    return (*sorted(places.values()), README)


def place_names(paths: list[str]) -> dict[str, str]:
    """Where each file goes: its last name, or its whole path where that is taken twice.

    >>> place_names(["a/model.onnx", "labels.txt"])
    {'a/model.onnx': 'model.onnx', 'labels.txt': 'labels.txt'}
    """
    last = [path.rpartition("/")[2] for path in paths]
    return {
        path: name if last.count(name) == 1 and name != README.lower() else path
        for path, name in zip(paths, last, strict=True)
    }


def _find(manifest: Manifest, name: str) -> Variant:
    for variant in manifest.variants:
        if variant.name == name:
            return variant
    known = ", ".join(variant.name for variant in manifest.variants)
    raise OperatorError(f"{manifest.name} has no variant {name[:80]!r}", hint=f"it has: {known}")


def _copy(source: Path, target: Path, digest: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OperatorError(f"cannot copy {source}: {error.strerror}") from None
    if found != digest:
        raise OperatorError(f"{source} was changed while it was copied")
