"""The converter from Python: the words of the commands and of the recipe; the commands call these.

    from edgefleet_converter import api

    built = api.build("digits.skops", "digits.toml", out="bundles", model="digits", version=1,
                      key="publisher.pem")

A recipe is a path of a TOML file, a table with the same words (paths in it are then taken from the
working directory), or a `Recipe`. A key is a path, a PKCS#11 URI or a `Signer`; trusted keys are
paths or `PublicKey`s. `cache` is where results are kept from which the next call resumes: True for
the user's folder, False for nowhere, or a folder. `progress` is told in words what begins.

Everything raises `EdgefleetError` (`edgefleet_contract.errors`): `OperatorError` for what a person
can mend, `PeerError` for a bundle that is not what a trusted key signed. Nothing is written then.
Libraries are loaded by the functions that need them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from errno import ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet_contract.bundle import parse_manifest, sha256
from edgefleet_contract.directory import read_documents
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing, PublicKey, Signer
from edgefleet_converter.api_values import Difference, Exported, Inspected
from edgefleet_converter.papers import read_papers
from edgefleet_converter.signing import open_signer, read_public_file

if TYPE_CHECKING:
    from edgefleet_converter.assembly import Built
    from edgefleet_converter.bench import Progress
    from edgefleet_converter.boards.figures import Heard
    from edgefleet_converter.channels import Channels
    from edgefleet_converter.join_recipe import JoinRecipe
    from edgefleet_converter.recipe import Measure, Recipe
    from edgefleet_converter.search.cache import Cache
    from edgefleet_converter.search.figures import SearchReport
    from edgefleet_converter.sweep import Sweep
    from edgefleet_converter.verifying import Verdict

    RecipeLike = Recipe | Path | str | Mapping[str, object]
    GraphLike = JoinRecipe | Path | str | Mapping[str, object]

__all__ = [
    *("Difference", "Exported", "Inspected", "bench", "build", "diff", "export", "inspect"),
    *("join", "prune", "prune_channels", "read_recipe", "report", "search", "verify"),
]

Key = Signer | Path | str
Trusted = Iterable[PublicKey | Path | str]
Kept = Path | str | bool


def _silent(_: str) -> None:
    """Tells nobody."""


def read_recipe(recipe: RecipeLike, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that was named, with `section.key=value` texts laid over it."""
    from edgefleet_converter import recipe as recipes

    if isinstance(recipe, recipes.Recipe):
        if overrides:
            raise OperatorError("a Recipe takes no overrides", hint="dataclasses.replace")
        return recipe
    if isinstance(recipe, Mapping):
        return recipes.recipe_from(recipe, folder=Path(), overrides=overrides)
    return recipes.load_recipe(Path(recipe), overrides)


def build(
    source: Path | str,
    recipe: RecipeLike,
    *,
    out: Path | str,
    model: str,
    version: int,
    key: Key,
    created: int | None = None,
    trust_pickle: bool = False,
    toolchain: Path | str | None = None,
    cache: Kept = True,
    progress: Progress = _silent,
) -> Built:
    """The signed bundle of a model, written to `out/<model>-<version>/`.

    Args:
        source: a model's file or folder, told by its content, or a factory, `module:function`.
        recipe: what is wished.
        out: the folder of bundles.
        model: its name in the fleet.
        version: rises with every release.
        key: the publisher's, ECDSA.
        created: seconds since 1970; by default SOURCE_DATE_EPOCH, or now.
        trust_pickle: a pickle may run any code while it loads; say True only for your own files.
        toolchain: the environment of the frameworks that models come from; by default our own.
        cache: where results are kept.
        progress: told what begins.
    """
    from edgefleet_converter import pipeline

    with _foreseen(), _signer(key) as signer, _cache(cache) as kept:
        return pipeline.build(
            source,
            read_recipe(recipe),
            out=out,
            model=model,
            version=version,
            key=signer,
            created=created,
            trust_pickle=trust_pickle,
            toolchain=None if toolchain is None else Path(toolchain),
            cache=kept,
            progress=progress,
        )


def join(
    graph: GraphLike,
    *,
    out: Path | str,
    model: str,
    version: int,
    key: Key,
    trust: Trusted = (),
    measure: Measure | None = None,
    created: int | None = None,
    cache: Kept = True,
    progress: Progress = _silent,
) -> Built:
    """The signed bundle of several models that answer as one; see `build`.

    Args:
        graph: models and nodes, see docs/spec/recipe.md, section 9.
        out: the folder of bundles.
        model: the name of the whole in the fleet.
        version: rises with every release.
        key: the publisher's, ECDSA.
        trust: who may have signed the bundles that are joined; by default `key`.
        measure: what is measured and where; by default what the graph says.
        created: seconds since 1970; by default SOURCE_DATE_EPOCH, or now.
        cache: where results are kept.
        progress: told what begins.
    """
    from edgefleet_converter import join as joining
    from edgefleet_converter import join_recipe

    with _foreseen(), _signer(key) as signer, _cache(cache) as kept:
        wish, source = _graph(graph)
        if measure is not None:
            wish = join_recipe.measured(wish, measure)
        return joining.join(
            wish,
            source=source,
            out=out,
            model=model,
            version=version,
            key=signer,
            trusted=_ring(trust) or KeyRing([signer.public]),
            created=created,
            cache=kept,
            progress=progress,
        )


def search(
    source: Path | str,
    recipe: RecipeLike,
    *,
    trust_pickle: bool = False,
    toolchain: Path | str | None = None,
    cache: Kept = True,
    progress: Progress = _silent,
    key: Signer | None = None,
) -> tuple[SearchReport, ...]:
    """One account for each int8 target of the recipe: all candidates, and the choice.

    `toolchain` is as for `build`; `key` is the publisher's, where running agents are to measure
    (recipe 15.4).
    """
    from edgefleet_converter.search.look import look

    with _foreseen(), _cache(cache) as kept:
        return look(
            Path(source),
            read_recipe(recipe),
            cache=kept,
            trust_pickle=trust_pickle,
            toolchain=None if toolchain is None else Path(toolchain),
            progress=progress,
            key=key,
        )


def bench(
    source: Path | str,
    recipe: RecipeLike | None = None,
    *,
    measure: Measure | None = None,
    trust: Trusted = (),
    key: Key | None = None,
    trust_pickle: bool = False,
    toolchain: Path | str | None = None,
    cache: Kept = True,
    progress: Progress = _silent,
) -> tuple[Heard, ...]:
    """What models cost on boards, one account for each board: the variants of a bundle, or those
    that a recipe makes of a model. Nothing is built.

    Args:
        source: a bundle, or with a recipe a model as `build` takes it.
        recipe: what is made.
        measure: runs, rounds and boards; by default what the recipe says, and this machine.
        trust: who may have signed the bundle.
        key: the publisher's, where running agents are to measure (recipe 15.4).
        trust_pickle: see `build`.
        toolchain: see `build`.
        cache: where results are kept.
        progress: told what begins.
    """
    from edgefleet_converter.boards import benching

    with _foreseen(), _cache(cache) as kept, _signer(key) if key else nullcontext() as signer:
        return benching.bench(
            str(source),
            None if recipe is None else read_recipe(recipe),
            measure,
            trusted=_ring(trust),
            key=signer,
            trust_pickle=trust_pickle,
            toolchain=None if toolchain is None else Path(toolchain),
            cache=kept,
            progress=progress,
        )


def prune(
    source: Path | str,
    recipe: RecipeLike,
    *,
    lambdas: Sequence[float] = (),
    trust_pickle: bool = False,
    toolchain: Path | str | None = None,
    cache: Kept = True,
    progress: Progress = _silent,
) -> Sweep:
    """What zeroing small weights costs: a point for each lambda, by default 0 and eleven more."""
    from edgefleet_converter.sweep import sweep

    with _foreseen(), _cache(cache) as kept:
        return sweep(
            Path(source),
            read_recipe(recipe),
            lambdas=lambdas,
            trust_pickle=trust_pickle,
            toolchain=None if toolchain is None else Path(toolchain),
            cache=kept,
            progress=progress,
        )


def prune_channels(
    factory: str,
    recipe: RecipeLike,
    *,
    out: Path | str,
    toolchain: Path | str | None = None,
    cache: Kept = True,
    progress: Progress = _silent,
) -> Channels:
    """The ONNX file `out` of a PyTorch module with fewer channels, and what that cost."""
    from edgefleet_converter import channels

    with _foreseen(), _cache(cache) as kept:
        return channels.prune_channels(
            factory,
            read_recipe(recipe),
            out=Path(out),
            toolchain=None if toolchain is None else Path(toolchain),
            cache=kept,
            progress=progress,
        )


def inspect(bundle: Path | str) -> Inspected:
    """What a bundle says of itself. Its signature is not checked: `verify` does."""
    from edgefleet_converter.showing import read_report

    root = Path(bundle)
    with _foreseen():
        raw, _ = read_documents(root)
        manifest = parse_manifest(raw)
        told = read_report(root, manifest)
        return Inspected(manifest, sha256(raw), told, read_papers(root, manifest))


def verify(
    bundle: Path | str, *, trust: Trusted, run: bool = True, progress: Progress = _silent
) -> Verdict:
    """What is found of a bundle: signature, files, papers, whether its models give what was signed.

    `problems` of the verdict is empty where it is good; a bundle that no trusted key signed raises.
    """
    from edgefleet_converter import verifying

    with _foreseen():
        ring = _ring(trust) or KeyRing()
        return verifying.verify(Path(bundle), ring, run=run, progress=progress)


def diff(old: Path | str, new: Path | str, *, trust: Trusted = ()) -> Difference:
    """What differs between two bundles, and the bytes that sending it costs, about.

    With keys in `trust`, both must be signed by one of them.
    """
    from edgefleet_converter.comparing import compare
    from edgefleet_converter.diff_tables import price
    from edgefleet_converter.page.told import read_told
    from edgefleet_converter.showing import read_shown

    with _foreseen():
        ring = _ring(trust)
        a, b = read_shown(Path(old), ring), read_shown(Path(new), ring)
        found = compare(a.manifest, b.manifest, read_told(a.report), read_told(b.report))
        return Difference(a.manifest, b.manifest, found, price(found, Path(old), Path(new)))


def export(
    bundle: Path | str,
    variant: str,
    *,
    out: Path | str,
    trust: Trusted = (),
    progress: Progress = _silent,
) -> Exported:
    """A variant as plain files in the new folder `out`, for use without edgefleet."""
    from edgefleet_converter import exporting

    with _foreseen():
        ring = _ring(trust)
        files = exporting.export(Path(bundle), variant, Path(out), ring, progress)
        return Exported(Path(out), files)


def report(bundle: Path | str, *, out: Path | str | None = None, trust: Trusted = ()) -> bytes:
    """One page (HTML, UTF-8) of what a bundle says of itself; written to `out` if that is named."""
    from edgefleet_converter.page import render_page
    from edgefleet_converter.showing import read_shown, write_page

    with _foreseen():
        shown = read_shown(Path(bundle), _ring(trust))
        if out is not None:
            write_page(Path(out), shown, bundle=Path(bundle))
        return render_page(shown)


def _graph(graph: GraphLike) -> tuple[JoinRecipe, Path | bytes]:
    """A graph, and what it was read from."""
    from edgefleet_converter import join_recipe

    if isinstance(graph, Path | str):
        return join_recipe.load_join(Path(graph)), Path(graph)
    if isinstance(graph, Mapping):
        graph = join_recipe.join_from(graph, folder=Path())
    return graph, join_recipe.render_join(graph)


def _ring(trust: Trusted) -> KeyRing | None:
    keys = [one if isinstance(one, PublicKey) else read_public_file(Path(one)) for one in trust]
    return KeyRing(keys) if keys else None


@contextmanager
def _signer(key: Key) -> Iterator[Signer]:
    if isinstance(key, Path | str):
        with open_signer(str(key)) as opened:
            yield opened
    else:
        yield key


@contextmanager
def _cache(kept: Kept) -> Iterator[Cache]:
    """Where results are kept; trimmed before, since who was killed could not, and afterwards."""
    from edgefleet_converter.search.cache import Cache, cache_folder

    if kept is False:
        yield Cache(None)
        return
    cache = Cache(cache_folder(os.environ) if kept is True else Path(kept))
    cache.trim()
    try:
        yield cache
    finally:
        cache.trim()


@contextmanager
def _foreseen() -> Iterator[None]:
    """What disk or memory refuse is said as what a person can mend."""
    try:
        yield
    except MemoryError as error:
        raise OperatorError(
            f"memory ran out ({error})", hint="fewer examples, or more memory"
        ) from error
    except OSError as error:
        place = error.filename2 or error.filename
        told = error.strerror or str(error) or type(error).__name__
        hint = "room in --out, in TMPDIR and in the cache folder" if error.errno == ENOSPC else ""
        raise OperatorError(f"{place or 'writing a file'}: {told}", hint=hint) from error
