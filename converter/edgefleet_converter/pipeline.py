"""A build from end to end: a model, a recipe and a key in; a signed bundle and its report out.

The shell of the room: files move between worker processes, the cores (`gate`, `metrics`, `golden`)
say what to make of the answers. Nothing stands in the output folder until all of it does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgefleet_contract.bundle import Manifest
from edgefleet_contract.keys import Signer
from edgefleet_converter.anchors import measure_anchors
from edgefleet_converter.assembly import Built, assemble, check_names, stamp, tool_versions
from edgefleet_converter.bench import Bench, Progress
from edgefleet_converter.boards.building import on_boards
from edgefleet_converter.boards.figures import BoardReport
from edgefleet_converter.foreign import describe_source
from edgefleet_converter.labels import find_labels
from edgefleet_converter.opening import Opened, open_source
from edgefleet_converter.pack import refuse_existing, staging
from edgefleet_converter.provenance import render_provenance
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.report import DataFile, Report, VariantReport
from edgefleet_converter.scratch import scratch
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.setting import refuse_unlike, set_up
from edgefleet_converter.variants import make_variant

__all__ = ["Built", "build"]


def build(
    source: Path | str,
    recipe: Recipe,
    *,
    out: Path | str,
    model: str,
    version: int,
    key: Signer,
    created: int | None = None,
    trust_pickle: bool = False,
    toolchain: Path | None = None,
    cache: Cache | None = None,
    progress: Progress = lambda _: None,
) -> Built:
    """The signed bundle of a model, written to `out/<model>-<version>/`.

    Args:
        source: a model's file or folder, told by its content, or a factory, `module:function`.
        recipe: see `edgefleet_converter.recipe`.
        out: the folder of bundles.
        model: its name in the fleet.
        version: rises with every release.
        key: the publisher's, ECDSA.
        created: seconds since 1970; by default SOURCE_DATE_EPOCH, or now.
        trust_pickle: a pickle may run any code while it loads; say True only for your own files.
        toolchain: the environment of the frameworks that models come from; by default our own.
        cache: of results, from which a build resumes; by default nothing is kept.
        progress: told what is being done.

    Raises:
        OperatorError: something that a person can mend; nothing is written then.
    """
    check_names(model, version, key)
    name = f"{model}-{version}"
    target = Path(out) / name
    refuse_existing(target)
    date = stamp(created)
    with scratch() as place:
        bench = Bench(recipe, place, progress, toolchain, cache or Cache(None), key)
        opened = open_source(bench, Path(source), trust_pickle=trust_pickle)
        labels = find_labels(recipe, opened.named, opened.answers)
        truth = opened.held_out.classes(labels, opened.answers)
        with staging(Path(out), name) as folder:
            setting, roles = set_up(recipe, opened, labels, folder, truth)
            made = [
                make_variant(bench, opened, setting, one, folder, truth) for one in recipe.targets
            ]
            refuse_unlike(tuple(one.variant for one in made))
            finished, boards = on_boards(bench, made, roles, folder, key)
            variants = tuple(one.variant for one in finished)
            anchors = measure_anchors(bench, opened, setting, truth)
            came = describe_source(Path(source), opened.kind, place / "source.onnx")
            told = tuple(one.told for one in finished)
            report = replace(_report(came, opened, model, version, told, boards), anchors=anchors)

            def origin(manifest: Manifest) -> bytes:
                return render_provenance(
                    manifest, report, recipe, source=Path(source).name, trust_pickle=trust_pickle
                )

            return assemble(
                folder,
                target,
                report=report,
                created=date,
                variants=variants,
                roles=roles | {path: role for one in made for path, role in one.roles.items()},
                card=recipe.card,
                origin=origin,
                key=key,
            )


def _report(
    source: DataFile,
    opened: Opened,
    model: str,
    number: int,
    variants: tuple[VariantReport, ...],
    boards: tuple[BoardReport, ...],
) -> Report:
    return Report(
        model=model,
        version=number,
        source_kind=opened.kind.value,
        source=source,
        calibration=opened.calibration.described if opened.calibration else None,
        held_out=opened.held_out.described,
        parity={f"{kind}-{one.precision}": one.parity for kind, one in opened.models.items()},
        variants=variants,
        tools=opened.tools | tool_versions(),
        prune=opened.pruned,
        lambda_sweep=opened.swept,
        boards=boards,
    )
