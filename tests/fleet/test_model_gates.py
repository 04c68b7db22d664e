"""Gates that look at what a model answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.drift import jensen_shannon, psi
from edgefleet_contract.errors import Malformed
from edgefleet_fleet.model_gates import (
    DEFAULT_GATES,
    NO_REFERENCE,
    Evidence,
    Kind,
    ModelGate,
    Reference,
    bounded,
    missing,
    objection,
    read,
    shares_of,
)

BEFORE = Reference(outputs=(500, 300, 150, 50), confidence=(0, 10, 40, 950))
SAME = Evidence(outputs=(250, 150, 75, 25), confidence=(0, 5, 20, 475))
counts = st.integers(0, 1000)
evidences = st.builds(
    Evidence,
    requests=counts,
    failures=counts,
    slow=counts,
    outputs=st.lists(st.integers(1, 9), max_size=4).map(tuple),
)


@pytest.mark.parametrize(
    ("gate", "well", "ill"),
    [
        (
            ModelGate(Kind.ERRORS, 0.05),
            Evidence(requests=1000, failures=40),
            Evidence(requests=1000, failures=90),
        ),
        (
            ModelGate(Kind.AGREEMENT, 0.9),
            Evidence(compared=400, agreed=370),
            Evidence(compared=400, agreed=320),
        ),
        (
            ModelGate(Kind.ACCURACY, 0.9),
            Evidence(labelled=400, right=370),
            Evidence(labelled=400, right=320),
        ),
        (ModelGate(Kind.SLOW, 0.2), Evidence(measured=20, slow=3), Evidence(measured=20, slow=15)),
        (ModelGate(Kind.MEMORY, 0.2), Evidence(measured=20, fat=3), Evidence(measured=20, fat=15)),
        (ModelGate(Kind.PSI, 0.25), SAME, Evidence(outputs=(100, 100, 100, 300))),
        (ModelGate(Kind.JS, 0.1), SAME, Evidence(outputs=(100, 100, 100, 300))),
        (ModelGate(Kind.CONFIDENCE, 0.1), SAME, Evidence(confidence=(100, 100, 100, 200))),
    ],
    ids=lambda value: value.kind if isinstance(value, ModelGate) else "",
)
def test_each_gate_holds_for_a_good_model_and_trips_for_a_bad_one(
    gate: ModelGate, well: Evidence, ill: Evidence
) -> None:
    assert objection((gate,), {"Pi 5": well}, BEFORE) == ""
    assert objection((gate,), {"Pi 5": ill}, BEFORE).startswith(f"{gate.kind.value} on Pi 5: ")
    few = replace(gate, min_sample=10**6)
    assert objection((few,), {"Pi 5": ill}, BEFORE) == ""
    assert missing((few,), {"Pi 5": ill}, BEFORE, 10**6)[0].startswith(f"gate {gate.kind.value}: ")
    assert missing((gate,), {"Pi 5": well}, BEFORE, 10**6) == ()


def test_one_class_that_is_ill_is_named_though_the_others_are_well() -> None:
    found = {"Pi 5": Evidence(measured=900), "Pi 3": Evidence(measured=9, slow=9)}
    assert objection(DEFAULT_GATES, found, NO_REFERENCE).startswith("slow on Pi 3: 1 ")


def test_a_figure_beyond_its_limit_by_chance_alone_does_not_trip() -> None:
    found = {"Pi 5": Evidence(requests=100, failures=6)}
    assert objection(DEFAULT_GATES, found, NO_REFERENCE) == ""


def test_gates_that_nobody_asked_for_are_not_waited_for() -> None:
    assert missing(DEFAULT_GATES, {}, NO_REFERENCE, 9) == ()
    assert missing((ModelGate(Kind.ERRORS, 0.05),), {}, NO_REFERENCE, 9) == (
        "gate errors: 0 of 100 requests seen",
    )


def test_without_a_reference_nothing_can_have_drifted_and_the_sample_is_missing() -> None:
    gate = ModelGate(Kind.PSI, 0.25)
    assert read(gate, SAME, NO_REFERENCE).sample == 0
    assert missing((gate,), {"Pi 5": SAME}, NO_REFERENCE, 9) == ("gate psi: 0 of 500 answers seen",)


def test_one_device_has_no_more_weight_than_its_share() -> None:
    loud = Evidence(requests=100_000, failures=50_000, outputs=(9000, 1000), compared=40, agreed=30)
    found = bounded(loud, 500)
    assert (found.requests, found.failures) == (500, 250)
    assert (found.outputs, found.compared, found.agreed) == ((450, 50), 40, 30)


@given(evidences, evidences)
def test_evidence_adds_up_and_can_be_taken_away_again(a: Evidence, b: Evidence) -> None:
    assert a + b == b + a
    width = len(a.outputs)
    assert (a + b - b).outputs[:width] == a.outputs
    assert sum((a + b - b).outputs) == sum(a.outputs)
    assert replace(a + b - b, outputs=()) == replace(a, outputs=())


def test_distances_have_their_published_values() -> None:
    # By hand: (0.6 - 0.5)·ln(0.6/0.5) + (0.4 - 0.5)·ln(0.4/0.5)
    assert psi((0.6, 0.4), (0.5, 0.5)) == pytest.approx(0.0405465, abs=1e-6)
    assert jensen_shannon((1.0, 0.0), (0.0, 1.0)) == pytest.approx(1.0)
    assert jensen_shannon((0.3, 0.7), (0.3, 0.7)) == pytest.approx(0.0)


@given(st.lists(counts, min_size=1, max_size=6), st.integers(0, 3))
def test_counts_become_shares_that_are_never_nothing(found: list[int], more: int) -> None:
    shares = shares_of(found, len(found) + more)
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0


@pytest.mark.parametrize(("kind", "limit"), [(Kind.ERRORS, 0.0), (Kind.JS, 1.5), (Kind.PSI, -1)])
def test_a_limit_that_makes_no_sense_is_refused(kind: Kind, limit: float) -> None:
    with pytest.raises(Malformed):
        ModelGate(kind, limit)
