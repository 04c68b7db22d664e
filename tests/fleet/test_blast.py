"""The simulation of `python -m bench rollout`, on a fleet small enough for a test."""

from __future__ import annotations

import pytest

from bench._rollout_rules import AwsJobs, HawkBit, Ours
from bench._rollout_world import MODES, World, play

SIZE = 300


@pytest.mark.parametrize("mode", MODES)
def test_a_bad_model_is_stopped_before_it_is_everywhere(mode: str) -> None:
    world = World(SIZE, mode, 1.0, seed=1)
    rule = Ours(world)
    found = play(rule, world)
    ill = sum(world.is_ill(device) for device in world.kinds)
    assert found.stopped
    assert rule.rollout.why
    assert found.harmed < ill / 3


def test_a_good_model_goes_everywhere() -> None:
    world = World(SIZE, "error", 0.0, seed=3)
    found = play(Ours(world), world)
    assert (found.stopped, found.completed, found.harmed) == (False, True, 0)
    assert found.reached > SIZE * 0.9


def test_the_references_do_what_their_documents_say() -> None:
    failing, silent = World(SIZE, "error", 1.0, seed=1), World(SIZE, "brick", 1.0, seed=1)
    assert play(HawkBit(failing, error=0.05, canary_error=0.1), failing).stopped
    assert not play(HawkBit(silent, error=0.05, canary_error=0.1), silent).stopped
    assert play(AwsJobs(failing, failed=(20, 0.2)), failing).stopped
    assert play(AwsJobs(silent, timed_out=(20, 0.05)), silent).stopped
    slow = World(SIZE, "slow", 1.0, seed=1)
    assert play(AwsJobs(slow), slow).completed
