"""`make fleet-kills`, as short as it says anything: three kills in running rollouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.fleet_kills import storm

pytestmark = pytest.mark.system


def test_a_control_room_that_is_killed_ends_its_rollouts_as_they_should(tmp_path: Path) -> None:
    score = storm(tmp_path, kills=3, seed=5, devices=3)
    assert score.kills >= 3
    assert score.events >= 18
    assert (score.wrong, score.asked_twice) == (0, 0)
