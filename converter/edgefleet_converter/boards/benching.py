"""What `edge-convert bench` does: a bundle's variants on boards; those of a recipe, made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgefleet_contract.bundle import MANIFEST
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing, PrivateKey, Signer
from edgefleet_converter.bench import Progress
from edgefleet_converter.boards.asking import Asker
from edgefleet_converter.boards.figures import Heard
from edgefleet_converter.boards.packing import pack_variants
from edgefleet_converter.boards.places import HERE
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import Measure, Recipe, Worker
from edgefleet_converter.scratch import scratch
from edgefleet_converter.search.cache import Cache


def bench(
    source: str,
    recipe: Recipe | None,
    wish: Measure | None,
    *,
    trusted: KeyRing | None,
    key: Signer | None,
    trust_pickle: bool,
    toolchain: Path | None,
    cache: Cache,
    progress: Progress,
) -> tuple[Heard, ...]:
    """What boards say of a bundle that a key of `trusted` signed, or of what a recipe makes.

    Without a wish, as the recipe says; without devices, this machine is the board.

    Raises:
        OperatorError, TransientError: a board cannot be asked, or nothing can be built.
        PeerError: the bundle is not what a trusted key signed.
    """
    wish = wish or (recipe.measure if recipe else Measure())
    wish = replace(wish, devices=wish.devices or (HERE,))
    folder = Path(recipe.folder) if recipe else Path()
    if recipe is None:
        if not (Path(source) / MANIFEST).is_file():
            raise OperatorError(f"{source} is no bundle", hint="--recipe RECIPE for a model")
        if not trusted:
            raise OperatorError(
                "a bundle's models are run where a trusted key signed them", hint="--trust KEY.pub"
            )
        return _measure(Path(source), trusted, Asker(wish, Worker(), folder, key), progress)
    with scratch() as place:
        made, ring = _make(
            source,
            recipe,
            place,
            trust_pickle=trust_pickle,
            toolchain=toolchain,
            cache=cache,
            progress=progress,
        )
        return _measure(made, ring, Asker(wish, recipe.worker, folder, key), progress)


def _measure(folder: Path, ring: KeyRing, asker: Asker, progress: Progress) -> tuple[Heard, ...]:
    manifest = verify_directory(folder, ring).manifest
    roles = {file.path: file.role for file in manifest.files}
    return asker.ask(pack_variants(folder, manifest.variants, roles, manifest.labels), progress)


def _make(
    source: str,
    recipe: Recipe,
    scratch: Path,
    *,
    trust_pickle: bool,
    toolchain: Path | None,
    cache: Cache,
    progress: Progress,
) -> tuple[Path, KeyRing]:
    """The variants of a recipe as a bundle that nobody publishes, and who signed it: a key that is
    forgotten. Nothing but a search measures on the way.

    Raises:
        OperatorError: as `build`.
    """
    here = recipe.measure.enabled and recipe.search.enabled  # which may choose by what it measures
    plain = replace(recipe, measure=replace(recipe.measure, devices=(), enabled=here))
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
        cache=cache,
        progress=progress,
    )
    return built.path, KeyRing([key.public])
