"""Bundles that a device must refuse, made from good ones: for the demo and the tests only.

`tamper` flips a bit after signing; `resign` signs the same files with another key;
`wrong_golden` signs, with the right key, answers that the model does not give. They need the
contract and NumPy, and no converter.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefleet_contract.bundle import (
    MANIFEST,
    SIGNATURE,
    Manifest,
    describe_file,
    parse_manifest,
    render_manifest,
)
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle


def wrong_golden(bundle_dir: Path, out_dir: Path, key: PrivateKey, version: int) -> Path:
    """A validly signed copy, as another version, whose golden outputs are wrong; its directory.

    Every output is replaced by its mirror image in its own range, far beyond any tolerance.
    """

    def spoil(folder: Path, manifest: Manifest) -> None:
        for variant in manifest.variants:
            _spoil_outputs(folder / variant.golden)

    return _copy(bundle_dir, out_dir, key, version, spoil)


def resign(bundle_dir: Path, out_dir: Path, key: PrivateKey, version: int) -> Path:
    """A copy, as another version, signed with `key`; its directory."""
    return _copy(bundle_dir, out_dir, key, version, lambda _folder, _manifest: None)


def tamper(bundle_dir: Path, out_dir: Path, key: PrivateKey, version: int) -> Path:
    """A copy, as another version, signed, and then one bit of every model file flipped."""
    target = resign(bundle_dir, out_dir, key, version)
    manifest = parse_manifest((target / MANIFEST).read_bytes())
    for variant in manifest.variants:
        raw = bytearray((target / variant.model).read_bytes())
        raw[len(raw) // 2] ^= 1
        (target / variant.model).write_bytes(raw)
    return target


def _copy(
    bundle_dir: Path,
    out_dir: Path,
    key: PrivateKey,
    version: int,
    change: Callable[[Path, Manifest], None],
) -> Path:
    manifest = replace(parse_manifest((bundle_dir / MANIFEST).read_bytes()), version=version)
    target = out_dir / manifest.name
    shutil.copytree(bundle_dir, target)
    (target / SIGNATURE).unlink()
    change(target, manifest)
    files = tuple(describe_file(target, file.path, file.role) for file in manifest.files)
    raw = render_manifest(replace(manifest, files=files))
    (target / MANIFEST).write_bytes(raw)
    (target / SIGNATURE).write_bytes(sign_bundle(raw, key))
    return target


def _spoil_outputs(path: Path) -> None:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for name, array in arrays.items():
        if name.startswith("output."):
            arrays[name] = (array.max() + array.min() - array).astype(array.dtype)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
