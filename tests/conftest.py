"""What holds for all tests: the order of their files, and that no example is held against a clock.

The longest file begins first, so that no worker waits for it alone. Models and services run beside,
so how long an example took, or its making, says nothing about it: what is to be quick says so.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

LONGEST: Final = ("test_packaging.py", "test_search.py", "test_prune_guide.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)  # the others stay as they are
