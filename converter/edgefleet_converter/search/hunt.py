"""The search for one int8 target: candidates made, judged and timed; one chosen and confirmed.

Only the time limit and, where the objective asks for speed, measured times make two runs differ.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter import gate, metrics
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors
from edgefleet_converter.bench import HELD_OUT, Bench, hardware_here
from edgefleet_converter.boards.asking import asker_of
from edgefleet_converter.boards.figures import BoardReport
from edgefleet_converter.opening import Opened
from edgefleet_converter.search import mixing, ranking
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.candidate import ALPHAS, Candidate, Graph, Operators, candidates
from edgefleet_converter.search.fidelity import Examples, fidelity_of
from edgefleet_converter.search.figures import (
    Fidelity,
    SearchReport,
    Sensitivity,
    sensitivity_of,
)
from edgefleet_converter.search.on_boards import sendable, speeds
from edgefleet_converter.search.running import Hunt
from edgefleet_converter.search.split import part, rows_of
from edgefleet_converter.search.wishes import Objective
from edgefleet_converter.search.workshop import Workshop
from edgefleet_converter.targets import Target
from edgefleet_converter.variants import RUNTIMES

_TIMING_S: Final = 8.0
_KEPT: Final = "confirm.npz"


@dataclass(frozen=True, slots=True)
class Found:
    """The choice of a search: its file, the largest step of its output, and the account.

    `is_dynamic`: ranges of activations are taken at each inference.
    """

    model: bytes
    quantum: float
    report: SearchReport
    is_dynamic: bool = False


def hunt(
    bench: Bench,
    opened: Opened,
    target: Target,
    truth: NDArray[np.int64] | None,
    *,
    cache: Cache | None = None,
) -> Found:
    """The int8 model of a target that the recipe's `[search]` finds.

    Args:
        bench: does the work; its recipe has the bounds.
        opened: the float models and the examples.
        target: an int8 one, of a float model.
        truth: the class of each held-out example, [N], if it is known.
        cache: of results; by default the bench's.

    Raises:
        OperatorError: nothing is inside the budget, or the choice is not once it is confirmed.
    """
    search = bench.recipe.search
    base = opened.models[target.kind]
    assert base.answers is not None  # an int8 target has no state
    cut = part(len(base.answers.arrays[0]), search.confirm_share)
    inputs = load_tensors(bench.scratch / HELD_OUT, "input")
    shown = bench.scratch / "search.npz"
    save_tensors(shown, "input", rows_of(inputs, cut.seen))
    save_tensors(bench.scratch / _KEPT, "input", rows_of(inputs, cut.kept))
    seen, kept = (
        _examples(bench, opened, base.answers.arrays, truth, rows) for rows in (cut.seen, cut.kept)
    )
    sources = {kind: model.path for kind, model in opened.models.items()}
    shop = Workshop(bench, target.kind, sources, shown, cache or bench.cache)
    bounds = _bounds(bench, shop, seen)
    run = Hunt(
        shop,
        target,
        seen,
        bounds,
        time.monotonic() + search.time_limit_s,
        base.answers.inputs[0].shape[:1] == (1,),
    )
    graphs = _graphs(shop)
    run.try_all(candidates(graphs))
    layers = None
    if ranking.best(list(run.told.values()), Objective.SIZE) is None:
        layers = _mix(run, graphs)
    hardware, boards = _time(run, shown) if bench.recipe.measure.enabled else (None, ())
    chosen = ranking.best(list(run.told.values()), search.objective)
    if chosen is None:
        raise _nothing(run)
    one = next(candidate for candidate, told in run.told.items() if told.name == chosen.name)
    confirmed = _confirm(run, one, kept)
    shop.cache.trim()
    before = seen.before
    report = SearchReport(
        target=target.value,
        objective=search.objective.value,
        chosen=chosen.name,
        is_complete=run.is_complete,
        search_examples=len(cut.seen),
        confirm_examples=len(cut.kept),
        candidates=ranking.with_front(list(run.told.values())),
        confirmed=confirmed,
        accuracy_float=None if before is None else metrics.wilson(int(before.sum()), len(before)),
        metric_float=bounds.metric_float,
        hardware=hardware,
        sensitivity=layers,
        boards=boards,
    )
    return Found(run.made[one].model, run.made[one].quantum, report, one.is_dynamic)


def _examples(
    bench: Bench,
    opened: Opened,
    answers: Arrays,
    truth: NDArray[np.int64] | None,
    rows: NDArray[np.int64],
) -> Examples:
    """One part. Behind steps after the model, decisions are not read in what the model gives."""
    mine = rows_of(answers, rows)
    is_decided = truth is not None or metrics.are_probabilities(answers[0])
    has_classes = (is_decided and not bench.recipe.after) or bench.recipe.search.min_agreement > 0
    raw = opened.held_out.truth
    known = None if truth is None or bench.recipe.after else truth[rows]
    return Examples(mine, known, has_classes, () if raw is None else (raw[rows],))


def _bounds(bench: Bench, shop: Workshop, seen: Examples) -> ranking.Bounds:
    search, budget = bench.recipe.search, bench.recipe.budget
    drop, sqnr = search.max_accuracy_drop, search.min_sqnr_db
    return ranking.Bounds(
        budget.max_accuracy_drop if drop is None else drop,
        budget.min_sqnr_db if sqnr is None else sqnr,
        search.min_agreement,
        search.max_metric_drop,
        shop.scores([seen.answers], seen.scored)[0] if search.metric else None,
    )


def _graphs(shop: Workshop) -> dict[float, Graph]:
    found = {alpha: shop.graph(alpha) for alpha in ALPHAS}
    return {alpha: graph for alpha, graph in found.items() if graph is not None}


def _mix(run: Hunt, graphs: dict[float, Graph]) -> Sensitivity | None:
    """Leave layers float, as few as bring a candidate inside the budget; what each layer wins."""
    found = None
    for base in _bases(run):
        found = _mix_one(run, graphs, base) or found
        if ranking.best(list(run.told.values()), Objective.SIZE) is not None:
            break
    return found


def _bases(run: Hunt) -> Iterator[Candidate]:
    """Where layers may be left float: the most exact candidate with static ranges; where that does
    not do, the most exact of all others but those with linear operators and float ends, which
    ranks layers otherwise; then the most exact with dynamic ranges that may be taken."""
    whole = {o: t for o, t in run.told.items() if o not in run.barred and not o.floats}
    static = {one: told for one, told in whole.items() if not one.is_dynamic}
    few = Operators.LINEAR_FLOAT_OUT
    others = {one: told for one, told in static.items() if one.operators is not few}
    dynamic = {one: told for one, told in whole.items() if one.is_dynamic}
    tried: list[Candidate] = []
    for group in (static, others, dynamic):
        exact = ranking.most_exact(list(group.values()))
        base = next((one for one, told in group.items() if told is exact), None)
        if base is not None and base not in tried:
            tried.append(base)
            yield base


def _mix_one(run: Hunt, graphs: dict[float, Graph], base: Candidate) -> Sensitivity | None:
    run.try_all([base])
    exact = run.told.get(base)
    if exact is None or exact.fidelity is None:
        return None
    layers = graphs[base.alpha].layers
    if len(layers) < 2:
        return None
    run.try_all([replace(base, floats=(layer,)) for layer in layers])
    gains = {
        layer: told.fidelity.sqnr_db
        for layer in layers
        if (told := run.told.get(replace(base, floats=(layer,)))) is not None
        and told.fidelity is not None
    }
    found = sensitivity_of(exact.name, exact.fidelity.sqnr_db, gains, len(gains) == len(layers))
    order = mixing.rank(layers, gains)
    sets = dict.fromkeys((base.operators, *graphs[base.alpha].operators, Operators.LINEAR))
    for operators in sets:
        start = replace(base, operators=operators)

        def judge(floats: tuple[str, ...], start: Candidate = start) -> bool:
            return run.is_inside(replace(start, floats=floats))

        prefix = mixing.shortest_prefix(order, judge)
        if prefix is not None:
            mixing.without_idle(prefix, judge)
            break
        if base.is_dynamic:
            break  # it has one set
    return found


def _time(run: Hunt, inputs: Path) -> tuple[str | None, tuple[BoardReport, ...]]:
    """Measure what may be chosen, and the candidates that are not mixed: on the boards of the
    recipe, else here in one process. The hardware that the times are of, and the boards."""
    wanted = [
        one
        for one, told in run.told.items()
        if told.fidelity is not None and (not told.outside or not one.floats)
    ]
    if not wanted:
        return None, ()
    bench = run.shop.bench
    asker = asker_of(bench.recipe, bench.key)
    if asker is not None:
        sent = sendable([run.told[one] for one in wanted])
        wanted = [one for one in wanted if run.told[one] in sent]
    models = [run.made[one].model for one in wanted]
    if asker is not None:
        kind = run.shop.kind
        found = speeds(bench, asker, kind, models, inputs, RUNTIMES[kind])
        for one, p50, trouble in zip(wanted, found.p50_us, found.troubles, strict=True):
            outside = run.told[one].outside or trouble
            run.told[one] = replace(run.told[one], p50_us=p50, outside=outside)
        classes = dict.fromkeys(one.board.hw for one in found.boards)
        return ", ".join(classes), found.boards
    times = run.shop.times(models, inputs, _TIMING_S)
    for one, p50 in zip(wanted, times, strict=True):
        run.told[one] = replace(run.told[one], p50_us=p50)
    return hardware_here(), ()


def _confirm(run: Hunt, one: Candidate, kept: Examples) -> Fidelity:
    """The figures of the choice on examples that the search did not see.

    Raises:
        OperatorError: they are outside the budget. Nothing else is tried then: what is tried until
            it fits is not confirmed by that.
    """
    bench = run.shop.bench
    path, answers = bench.scratch / "chosen", bench.scratch / "chosen.npz"
    path.write_bytes(run.made[one].model)
    what = f"confirming {run.target} {one.name}"
    params: dict[str, Json] = {"format": run.shop.kind.value}
    files = {"model": path, "inputs.npz": bench.scratch / _KEPT}
    bench.task("run_model", what, files, {"outputs.npz": answers}, **params)
    outputs = load_tensors(answers, "output")
    gate.refuse_not_finite(outputs, what=what)
    bounds, score = run.bounds, None
    if bench.recipe.search.metric:
        before, score = run.shop.scores([kept.answers, outputs], kept.scored)
        bounds = replace(bounds, metric_float=before)
    fidelity = fidelity_of(kept, outputs, score)
    if why := ranking.outside(fidelity, bounds, for_certain=True):
        raise OperatorError(
            f"{run.target}: {one.name} was inside the budget on the examples that the search saw, "
            f"and is not on the {len(kept.answers[0])} that it did not: {why}",
            hint="more held-out examples, or a larger budget",
        )
    return fidelity


def _nothing(run: Hunt) -> OperatorError:
    told = [told for one, told in run.told.items() if one not in run.barred]
    nearest = ranking.most_exact(told)
    if nearest is None:
        why = next((one.outside for one in told), "the time limit came first")
        return OperatorError(f"{run.target}: no candidate could be made: {why}")
    late = "" if run.is_complete else "; the time limit ended the search"
    return OperatorError(
        f"{run.target}: none of {len(run.told)} candidates is inside the budget; the nearest, "
        f"{nearest.name}: {nearest.outside}{late}",
        hint="calibration data that looks like what devices see, a float32 target, or more time",
    )
