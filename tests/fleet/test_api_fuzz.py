"""A short, seeded run of schemathesis against the served API; `make api-fuzz` is the long one."""

from __future__ import annotations

import pytest

from edgefleet_fleet.services import Services
from tests.fleet.stage import Stage

pytest.importorskip("schemathesis")  # of the extra dev


def test_no_5xx_and_no_answer_that_the_document_lacks(services: Services, stage: Stage) -> None:
    from tests.fleet import api_fuzz

    found = api_fuzz.run(services, api_fuzz.populate(stage), examples=1, number=3, in_turns=True)
    assert found.server_errors == []
    assert found.undocumented == []
    assert found.operations > 60
    assert found.calls > 55  # what takes nothing cannot be asked wrongly
    assert found.statuses[200] > 10  # not all of it is refused at the door
