"""What `edge-convert bench` does: a bundle's variants on boards; those of a recipe, made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgefleet_contract.directory import verify_directory
from edgefleet_contract.keys import KeyRing, PrivateKey, Signer
from edgefleet_converter.bench import Progress
from edgefleet_converter.boards.asking import Asker
from edgefleet_converter.boards.figures import Heard
from edgefleet_converter.boards.packing import pack_variants
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import Measure, Recipe, Worker


def measure(
    folder: Path, ring: KeyRing, wish: Measure, key: Signer | None, progress: Progress
) -> tuple[Heard, ...]:
    """What boards say of the variants of a bundle.

    Raises:
        OperatorError, TransientError: a board cannot be asked.
        PeerError: the bundle is not what a key of `ring` signed.
    """
    manifest = verify_directory(folder, ring).manifest
    roles = {file.path: file.role for file in manifest.files}
    pack = pack_variants(folder, manifest.variants, roles, manifest.labels)
    return Asker(wish, Worker(), Path(), key).ask(pack, progress)


def make(
    source: str,
    recipe: Recipe,
    scratch: Path,
    *,
    trust_pickle: bool,
    toolchain: Path | None,
    progress: Progress,
) -> tuple[Path, KeyRing]:
    """The variants of a recipe as a bundle that nobody publishes, and who signed it: a key that is
    forgotten. Nothing is measured on the way.

    Raises:
        OperatorError: as `build`.
    """
    plain = replace(recipe, measure=replace(recipe.measure, devices=()))
    key = PrivateKey.generate_p256()
    built = build(
        source,
        plain,
        out=scratch,
        model="bench",
        version=1,
        key=key,
        trust_pickle=trust_pickle,
        toolchain=toolchain,
        progress=progress,
    )
    return built.path, KeyRing([key.public])
