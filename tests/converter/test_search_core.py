"""The pure parts of the search: bounds, objectives, the front, mixed precision, intervals."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.measuring import MAX_CANDIDATES
from edgefleet_converter.fitting import Needs, Operator
from edgefleet_converter.hardware import BOARDS, HardwareClass
from edgefleet_converter.metrics import wilson
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.search import figures, mixing
from edgefleet_converter.search.barred import BATCH_DEPENDS, OLD_RUNTIME, why_barred
from edgefleet_converter.search.candidate import Candidate, Graph, Operators, Ranges, candidates
from edgefleet_converter.search.figures import CandidateReport, Fidelity, paired_drop
from edgefleet_converter.search.on_boards import sendable
from edgefleet_converter.search.ranking import Bounds, best, outside, with_front
from edgefleet_converter.search.split import part
from edgefleet_converter.search.wishes import Objective
from edgefleet_converter.variants import RUNTIMES

BOUNDS = Bounds(max_accuracy_drop=0.02, min_sqnr_db=10.0, min_agreement=0.9)


def told(name: str, sqnr: float, size: int, p50: float | None = None) -> CandidateReport:
    return CandidateReport(name, 2 * size, size, Fidelity(sqnr), p50_us=p50)


@pytest.mark.parametrize("module", [figures, mixing])
def test_the_examples_in_docstrings_are_so(module: ModuleType) -> None:
    assert doctest.testmod(module, globs=vars(module) | {"np": np}).failed == 0


@pytest.mark.parametrize(
    ("fidelity", "word"),
    [
        (Fidelity(9.9), "SQNR"),
        (Fidelity(30.0, agreement=wilson(97, 100)), "accuracy drops by 3.00"),
        (Fidelity(30.0, agreement=wilson(99, 100)), ""),
        (
            Fidelity(
                30.0,
                accuracy_drop=paired_drop(np.ones(100, bool), np.arange(100) > 2),
                agreement=wilson(97, 100),
            ),
            "accuracy drops by 3.00",
        ),
        (
            Fidelity(
                30.0,
                accuracy_drop=paired_drop(np.ones(100, bool), np.ones(100, bool)),
                agreement=wilson(89, 100),
            ),
            "agreement 89.00 %",
        ),
    ],
)
def test_bounds_say_what_a_candidate_is_over(fidelity: Fidelity, word: str) -> None:
    said = outside(fidelity, BOUNDS)
    assert said.startswith(word) if word else said == ""


def test_few_examples_refuse_only_what_is_over_for_certain() -> None:
    def lost(count: int, of: int) -> Fidelity:
        after = np.arange(of) >= count
        return Fidelity(
            30.0,
            accuracy_drop=paired_drop(np.ones(of, bool), after),
            agreement=wilson(of - count, of),
        )

    bounds = replace(BOUNDS, min_agreement=0.0)
    assert outside(lost(2, 66), bounds).startswith("accuracy drops by 3.03")
    assert outside(lost(2, 66), bounds, for_certain=True) == ""
    assert outside(lost(12, 66), bounds, for_certain=True).startswith("accuracy drops for certain")


def test_a_metric_is_bounded_by_what_the_float_model_reaches() -> None:
    bounds = replace(BOUNDS, max_metric_drop=0.1, metric_float=0.8)
    assert outside(Fidelity(30.0, metric=0.71), bounds) == ""
    assert "the metric drops by 0.2" in outside(Fidelity(30.0, metric=0.6), bounds)


OBJECTIVES = {
    Objective.SIZE: "small",
    Objective.LATENCY: "fast",
    Objective.BOTH: "middle",
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objective_chooses_among_those_inside(objective: Objective) -> None:
    found = [
        told("small", 20, 100, 90.0),
        told("fast", 20, 400, 20.0),
        told("middle", 20, 150, 30.0),
        replace(told("outside", 40, 10, 1.0), outside="SQNR"),
    ]
    chosen = best(found, objective)
    assert chosen is not None
    assert chosen.name == OBJECTIVES[objective]


def test_of_sizes_that_are_near_the_higher_sqnr_is_taken() -> None:
    found = [told("a", 20, 1000), told("b", 30, 1009), told("c", 50, 1049)]
    chosen = best(found, Objective.SIZE)
    assert chosen is not None
    assert chosen.name == "b"


reports = st.lists(
    st.builds(
        told,
        st.text("abcdef", min_size=1, max_size=4),
        st.floats(0, 60),
        st.integers(1, 50),
        st.floats(1, 100),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one.name,
)


@given(found=reports, times=st.lists(st.floats(1, 100), min_size=8, max_size=8))
def test_latency_and_order_do_not_decide_where_size_is_wanted(
    found: list[CandidateReport], times: list[float]
) -> None:
    slower = [replace(one, p50_us=p50) for one, p50 in zip(found, times, strict=False)]
    a, b = best(found, Objective.SIZE), best(slower[::-1], Objective.SIZE)
    assert a is not None
    assert b is not None
    assert a.name == b.name


@given(found=reports)
def test_on_the_front_nothing_beats_and_off_it_something_does(found: list[CandidateReport]) -> None:
    def beats(a: CandidateReport, b: CandidateReport) -> bool:
        assert a.fidelity is not None
        assert b.fidelity is not None
        mine = (-a.fidelity.sqnr_db, a.size_zstd, a.p50_us)
        theirs = (-b.fidelity.sqnr_db, b.size_zstd, b.p50_us)
        return mine != theirs and all(x <= y for x, y in zip(mine, theirs, strict=True))

    marked = with_front(found)
    assert any(one.is_front for one in marked)
    for one in marked:
        assert one.is_front == (not any(beats(other, one) for other in marked))


@given(needed=st.sets(st.sampled_from("abcdefgh"), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_mixing_finds_exactly_the_layers_that_are_needed(needed: set[str], seed: int) -> None:
    order = list(np.random.default_rng(seed).permutation(list("abcdefghi")))
    calls = []

    def is_inside(floats: tuple[str, ...]) -> bool:
        calls.append(floats)
        return needed <= set(floats)

    prefix = mixing.shortest_prefix(order, is_inside)
    if set(order[:-1]) >= needed:
        assert prefix is not None
        assert set(mixing.without_idle(prefix, is_inside)) == needed
        assert len(calls) <= 4 + len(order)
    else:
        assert prefix is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300))
def test_the_paired_interval_holds_its_drop(pairs: list[tuple[bool, bool]]) -> None:
    before, after = np.asarray(pairs, np.bool_).T
    drop, back = paired_drop(before, after), paired_drop(after, before)
    assert drop.low < drop.high
    assert abs(drop.value) == 1 or drop.low <= drop.value <= drop.high
    assert (drop.value, drop.low) == (pytest.approx(-back.value), pytest.approx(-back.high))


def test_every_candidate_has_a_name_of_its_own() -> None:
    ways = (Operators.ALL, Operators.MATRIX)
    full = Graph(0, 0, ("a", "b"), tuple(Ranges), tuple(Operators), ways, has_old_dense=True)
    graphs = {alpha: replace(full, alpha=alpha, links=1) for alpha in (0.0, 0.5, 0.75)}
    found = candidates(graphs)
    assert len(found) == 3 * (3 * 7 + 4 + 4)
    assert len({one.name for one in found}) == len(found)
    assert candidates({0.0: full, 0.5: replace(full, links=0)}) == candidates({0.0: full})
    assert Candidate(0.5, floats=("a", "b")).name == "eq0.5-minmax-all-float(a+b)"


def test_a_job_for_boards_has_those_that_may_be_taken_before_others() -> None:
    many = [told(f"c{place:02}", 20, 100 + place) for place in range(60)]
    over = [replace(told(f"o{place}", 5, place), outside="over") for place in range(9)]
    sent = sendable([*over, *many])
    assert len(sent) == MAX_CANDIDATES
    assert sent[:60] == many
    assert [one.name for one in sent[60:]] == ["o0", "o1", "o2", "o3"]


OLD = HardwareClass("armhf", {"tflite-runtime": "2.14.0"})
BY_CHANNEL, BY_TENSOR = (
    Needs((Operator("c", "CONV_2D", 5), Operator("d", "FULLY_CONNECTED", version)))
    for version in (12, 9)
)


@pytest.mark.parametrize(
    ("needs", "classes", "says"),
    [
        (BY_CHANNEL, {}, OLD_RUNTIME),
        (BY_TENSOR, {}, ""),
        (BY_CHANNEL, {"rpi4": BOARDS["rpi4"]}, ""),
        (BY_CHANNEL, {"rpi4": BOARDS["rpi4"], "old": OLD}, "old cannot run it: node 'd'"),
        (BY_TENSOR, {"rpi4": BOARDS["rpi4"], "old": OLD}, ""),
    ],
)
def test_dynamic_tflite_is_taken_where_every_board_has_the_kernels(
    needs: Needs, classes: dict[str, HardwareClass], says: str
) -> None:
    lowest = RUNTIMES[Format.TFLITE]
    found = why_barred(Format.TFLITE, needs, lowest, classes, is_batch_fixed=False)
    assert says in found
    assert bool(says) == bool(found)


@pytest.mark.parametrize("is_fixed", [False, True])
def test_dynamic_onnx_is_taken_one_example_at_a_time_alone(is_fixed: bool) -> None:
    needs, lowest = Needs(()), RUNTIMES[Format.ONNX]
    found = why_barred(Format.ONNX, needs, lowest, {}, is_batch_fixed=is_fixed)
    assert found == ("" if is_fixed else BATCH_DEPENDS)


@given(count=st.integers(20, 3000), share=st.floats(0.1, 0.9))
def test_no_example_is_seen_and_kept(count: int, share: float) -> None:
    cut = part(count, share)
    assert sorted([*cut.seen, *cut.kept]) == list(range(count))
    assert min(len(cut.seen), len(cut.kept)) >= 1
    assert np.array_equal(part(count, share).seen, cut.seen)


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("search.objective=speed", "speed"),
        ("search.objective=latency", "measure.enabled"),
        ("search.confirm_share=0.01", "confirm_share"),
        ("search.metric=score", "module:function"),
        ("search.metric=a b:c", "module:function"),
        ("search.min_agreement=2.0", "min_agreement"),
        ("search.time_limit_s=0", "time_limit_s"),
        ("search.tries=3", "tries"),
    ],
)
def test_a_wrong_search_section_is_refused(override: str, word: str, tmp_path: Path) -> None:
    text = "[data]\ncalibration='a'\nheld_out='b'\n[search]\nenabled=true\n[measure]\nenabled=false"
    with pytest.raises(OperatorError, match=word):
        parse_recipe(text, folder=tmp_path, overrides=[override])
