"""A build and its boards: finished variants measured there, their limits, and what the report has.

A variant that fails on a board of its own kind refuses the build: it would fail there again, on
every device. Where boards measured, the limits are theirs and not the desk's. [recipe-15.6]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgefleet_contract.bundle import Limits, Role
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import Signer
from edgefleet_converter.bench import Bench
from edgefleet_converter.boards.asking import asker_of
from edgefleet_converter.boards.figures import BoardReport, OnBoard, first_trouble
from edgefleet_converter.boards.packing import pack_variants
from edgefleet_converter.program import LABELS
from edgefleet_converter.recipe import Headroom
from edgefleet_converter.report import Measured
from edgefleet_converter.variants import Made, limits_of


def on_boards(
    bench: Bench, made: Sequence[Made], roles: Mapping[str, Role], folder: Path, key: Signer
) -> tuple[tuple[Made, ...], tuple[BoardReport, ...]]:
    """The same variants with the limits that the recipe's boards measured, and those boards.

    Args:
        bench: does the work.
        made: the variants, in the folder of the bundle.
        roles: of the files beside theirs.
        folder: of the bundle.
        key: signs jobs for boards whose agents run.

    Raises:
        OperatorError: a variant fails on a board, or a board has no runtime for any of them.
        TransientError, Unverified: a board cannot be asked.
    """
    asker = asker_of(bench.recipe, key)
    if asker is None:
        return tuple(made), ()
    every = dict(roles) | {path: role for one in made for path, role in one.roles.items()}
    labels = LABELS if LABELS in every else None
    pack = pack_variants(folder, (one.variant for one in made), every, labels)
    found = asker.ask(pack, bench.progress)
    for one in found:
        if all(model.is_passed_over for model in one.models.values()):
            why = next(iter(one.models.values())).trouble
            raise OperatorError(f"{one.report.name} runs none of the variants: {why}")
    return (
        tuple(
            _with(one, [board.models[one.variant.name] for board in found], bench.recipe.limits)
            for one in made
        ),
        tuple(one.report for one in found),
    )


def limits_on(found: Iterable[OnBoard], room: Headroom) -> dict[str, Limits]:
    """The signed envelope of every hardware class that was measured: of its slowest board. Pure."""
    by_class: dict[str, list[OnBoard]] = {}
    for one in found:
        if not one.trouble:
            by_class.setdefault(one.hw, []).append(one)
    limits: dict[str, Limits] = {}
    for hw, boards in by_class.items():
        worst = Measured(
            hw,
            load_ms=max(one.load_ms for one in boards),
            p50_us=max(one.p50_us for one in boards),
            p95_us=max(one.p95_us for one in boards),
            ram_mib=max(one.ram_mib for one in boards),
        )
        limits |= limits_of(worst, room)
    return limits


def _with(one: Made, found: list[OnBoard], room: Headroom) -> Made:
    if trouble := first_trouble(found):
        raise OperatorError(
            f"{one.variant.name} fails {trouble}",
            hint="devices of this kind would refuse it: another target, or another board",
        )
    variant = replace(one.variant, limits=limits_on(found, room))
    return replace(one, variant=variant, told=replace(one.told, boards=tuple(found)))
