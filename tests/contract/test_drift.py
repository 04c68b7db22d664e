"""Divergences against definitions, windows against laws, documents against strangers."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract import drift
from edgefleet_contract.bundle import Digest
from edgefleet_contract.drift import Counted, Window
from edgefleet_contract.drift_reference import (
    Distribution,
    Kind,
    Reference,
    parse_reference,
    render_reference,
)
from edgefleet_contract.errors import Malformed
from edgefleet_contract.messages import parse, render
from edgefleet_contract.telemetry import ModelTelemetry

A, B = Digest("a" * 64), Digest("b" * 64)
NUMBERS = Distribution("x", Kind.NUMBER, (250, 250, 250, 250), edges=(1.0, 2.0, 3.0), column=0)
CLASSES = Distribution("y", Kind.CLASS, (600, 400, 0), classes=(0, 1))
REFERENCE = Reference(1000, 10, (NUMBERS,), (CLASSES,))

windows = st.builds(
    lambda n, bins, classes: Window(A, n, (Counted(tuple(bins)), Counted(tuple(classes), 1, 2))),
    st.integers(0, 1000),
    st.lists(st.integers(0, 1000), min_size=4, max_size=4),
    st.lists(st.integers(0, 1000), min_size=3, max_size=3),
)


def window(numbers: tuple[int, ...], classes: tuple[int, ...]) -> Window:
    return Window(A, sum(numbers), (Counted(numbers), Counted(classes)))


@given(windows, windows, windows)
def test_windows_merge_in_any_order_and_grouping(a: Window, b: Window, c: Window) -> None:
    assert drift.merge(a, b) == drift.merge(b, a)
    assert drift.merge(drift.merge(a, b), c) == drift.merge(a, drift.merge(b, c))


def test_windows_of_two_references_do_not_merge() -> None:
    one = window((1, 1, 1, 1), (2, 2, 0))
    with pytest.raises(ValueError, match="two references"):
        drift.merge(one, replace(one, reference=B))


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=20), st.randoms())
def test_divergences_are_symmetric_and_zero_only_where_nothing_differs(
    weights: list[float], chance: random.Random
) -> None:
    p = [w / sum(weights) for w in weights]
    q = p[:]
    chance.shuffle(q)
    for measure in (drift.psi, drift.jensen_shannon):
        assert math.isclose(measure(p, q), measure(q, p), abs_tol=1e-12)
        assert measure(p, p) == pytest.approx(0, abs=1e-12)
        assert measure(p, q) >= -1e-12
    assert drift.jensen_shannon(p, q) <= 1


def test_what_is_asked_as_before_has_not_drifted_and_another_mixture_has() -> None:
    assert not drift.has_drifted(REFERENCE, window((130, 120, 125, 125), (310, 190, 0)))
    moved = window((20, 60, 120, 300), (310, 190, 0))
    assert drift.has_drifted(REFERENCE, moved)
    numbers, classes = drift.compare(REFERENCE, moved)
    assert numbers.psi > drift.MAJOR > classes.psi


def test_few_examples_say_nothing_however_odd_they_are() -> None:
    few = window((0, 0, 1, 4), (5, 0, 0))
    assert drift.compare(REFERENCE, few)[0].psi > drift.MAJOR
    assert not drift.has_drifted(REFERENCE, few)


def test_numbers_that_are_missing_are_drift() -> None:
    told = Window(A, 400, (Counted((50, 50, 50, 50), missing=200), Counted((240, 160, 0))))
    assert drift.has_drifted(REFERENCE, told)


def test_chance_exceeds_the_noise_about_once_in_a_thousand_times() -> None:
    chance = random.Random(1)
    bins, n, m, over = 10, 500, 1000, 0
    for _ in range(1000):
        counts = []
        for size in (m, n):
            found = [0] * bins
            for k in chance.choices(range(bins), k=size):
                found[k] += 1
            counts.append(tuple(found))
        edges = tuple(float(i) for i in range(bins - 1))
        reference = Reference(m, 10, (Distribution("x", Kind.NUMBER, counts[0], edges=edges),), ())
        (one,) = drift.compare(reference, Window(A, n, (Counted(counts[1]),)))
        over += one.psi > one.noise
    assert over <= 6


def test_with_the_smallest_sample_chance_stays_below_the_bound() -> None:
    n = drift.minimum_sample(10, 1000)
    assert n is not None
    assert drift.noise(10, 1000, n) <= drift.MAJOR < drift.noise(10, 1000, n - 1)


def test_a_window_with_other_bins_is_not_compared() -> None:
    assert drift.compare(REFERENCE, Window(A, 3, (Counted((1, 2)),))) == ()


def test_a_document_reads_as_it_was_written() -> None:
    raw = render_reference(REFERENCE)
    assert parse_reference(raw) == REFERENCE
    assert render_reference(parse_reference(raw)) == raw


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema", "edgefleet.drift/2"),
        ("least", 4),
        ("examples", 19),
        ("stranger", 1),
        ("inputs.edges", [1.0, 1.0, 2.0]),
        ("inputs.edges", [1.0, 2.0]),
        ("inputs.counts", [-1, 1, 1, 1]),
        ("inputs.counts", [0, 0, 0, 0]),
        ("inputs.kind", "colour"),
        ("outputs.classes", [1, 1]),
    ],
)
def test_a_document_that_is_none_is_refused(place: str, value: object) -> None:
    told = json.loads(render_reference(REFERENCE))
    name, _, inner = place.partition(".")
    if inner:
        told[name][0][inner] = value
    else:
        told[name] = value
    with pytest.raises(Malformed):
        parse_reference(json.dumps(told).encode())


def test_a_huge_document_is_refused_unread() -> None:
    with pytest.raises(Malformed, match="at most"):
        parse_reference(b" " * 70_000)


def test_telemetry_carries_a_window_and_bounds_it() -> None:
    told = ModelTelemetry(
        device="a", ts=1, slot="s", model="m", version=1, variant="v", engine="litert",
        requests=1, failures=0, interval_requests=1, latency_p50_us=1, latency_p95_us=1,
        worker_rss_bytes=1, drift=window((1, 2, 3, 4), (6, 4, 0)),
    )  # fmt: skip
    assert parse(ModelTelemetry, render(told)) == told
    assert parse(ModelTelemetry, render(replace(told, drift=None))).drift is None
    value = json.loads(render(told))
    for key, wrong in (("examples", -1), ("reference", "x"), ("counted", [])):
        bad = {**value, "drift": {**value["drift"], key: wrong}}
        with pytest.raises(Malformed):
            parse(ModelTelemetry, json.dumps(bad).encode())
    with pytest.raises(Malformed, match="65 are read"):
        Counted((0,) * 66)
