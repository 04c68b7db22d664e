"""Several models that answer as one: bundles and files joined by a graph to one signed bundle.

    open parts ──▶ for each format: nodes ──▶ run whole ──▶ judge ──▶ golden vectors ──▶ measure

Nothing is converted. What is judged, measured and reproduced by devices is the whole, on held-out
examples of all its inputs.
"""

from __future__ import annotations

from pathlib import Path

from edgefleet_contract.bundle import Manifest, Role, sha256
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import KeyRing, Signer
from edgefleet_converter import gate
from edgefleet_converter.assembly import Built, assemble, check_names, stamp, tool_versions
from edgefleet_converter.bench import Bench, Progress
from edgefleet_converter.boards.building import on_boards
from edgefleet_converter.examples import Wish, load_held_out
from edgefleet_converter.join_recipe import JoinRecipe
from edgefleet_converter.joined_variants import Joined, copy_in, make_joined
from edgefleet_converter.labels import find_labels
from edgefleet_converter.pack import refuse_existing, staging
from edgefleet_converter.parts import open_parts
from edgefleet_converter.program import LABELS, place_files
from edgefleet_converter.provenance import render_join_provenance
from edgefleet_converter.report import DataFile, Report, VariantReport
from edgefleet_converter.scratch import scratch
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.setting import refuse_unlike
from edgefleet_converter.variants import Made
from edgefleet_converter.wholes import WholeAnswers


def join(
    wish: JoinRecipe,
    *,
    source: Path | bytes,
    out: Path | str,
    model: str,
    version: int,
    key: Signer,
    trusted: KeyRing,
    created: int | None = None,
    cache: Cache | None = None,
    progress: Progress = lambda _: None,
) -> Built:
    """The signed bundle of a graph of models, written to `out/<model>-<version>/`.

    Args:
        wish: see `edgefleet_converter.join_recipe`.
        source: the file that it was read from, or what stands in it, for the provenance.
        out: the folder of bundles.
        model: its name in the fleet.
        version: rises with every release.
        key: the publisher's, ECDSA.
        trusted: who may have signed the bundles that are joined.
        created: seconds since 1970; by default SOURCE_DATE_EPOCH, or now.
        cache: of results, from which a build resumes; by default nothing is kept.
        progress: told what is being done.

    Raises:
        OperatorError: something that a person can mend; nothing is written then.
        PeerError: a bundle that is joined is not what a trusted key signed.
    """
    check_names(model, version, key)
    target = Path(out) / f"{model}-{version}"
    refuse_existing(target)
    date = stamp(created)
    recipe = wish.as_recipe()
    with scratch() as place:
        bench = Bench(recipe, place, progress, cache=cache or Cache(None))
        parts = open_parts(wish, trusted)
        labels = find_labels(recipe, parts.labels, None)
        held_out = load_held_out(
            recipe.path(recipe.data.held_out), wish=Wish(recipe.data, recipe.worker)
        )
        with staging(Path(out), target.name) as folder:
            roles = _step_files(wish, labels, folder)
            joined = Joined(wish, parts, held_out, labels)
            made: list[Made] = []
            first: WholeAnswers | None = None
            for kind in wish.formats:
                one, answers = make_joined(bench, joined, kind, folder, first)
                made, first = [*made, one], first or answers
                roles |= one.roles
            refuse_unlike(tuple(one.variant for one in made))
            _gate(wish, [one.told for one in made])
            finished, boards = on_boards(bench, made, roles, folder, key)
            variants = tuple(one.variant for one in finished)
            raw = source if isinstance(source, bytes) else source.read_bytes()
            report = Report(
                model=model,
                version=version,
                source_kind="graph of models",
                source=DataFile(sha256(raw), len(raw)),
                held_out=held_out.described,
                parity={},
                variants=tuple(one.told for one in finished),
                tools=tool_versions(),
                boards=boards,
            )

            def origin(manifest: Manifest) -> bytes:
                return render_join_provenance(manifest, report, wish, parts.materials)

            return assemble(
                folder,
                target,
                report=report,
                created=date,
                variants=variants,
                roles=roles,
                card=wish.card,
                origin=origin,
                key=key,
            )


def _step_files(wish: JoinRecipe, labels: tuple[str, ...], folder: Path) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for name, place in place_files(wish.steps).items():
        roles[place] = Role.VOCABULARY
        copy_in(Path(wish.folder) / name, folder / place)
    if labels:
        (folder / LABELS).write_text("".join(f"{one}\n" for one in labels), "utf-8")
        roles[LABELS] = Role.LABELS
    return roles


def _gate(wish: JoinRecipe, told: list[VariantReport]) -> None:
    """Refuse a whole that is not good enough, or a variant that is much worse than the best."""
    shares = [one.accuracy for one in told if one.accuracy is not None]
    if not shares:
        if wish.budget.min_accuracy:
            raise OperatorError("budget.min_accuracy: the held-out data has no y to measure by")
        return
    best = max(share.value for share in shares)
    for one in told:
        assert one.accuracy is not None  # there is one truth for all of them
        gate.refuse_less_than(one.accuracy.value, wish.budget.min_accuracy, what=one.name)
        gate.refuse_drop(best - one.accuracy.value, wish.budget.max_accuracy_drop, what=one.name)
