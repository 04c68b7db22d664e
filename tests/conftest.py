"""The order of the test files: the longest begins first, so that no worker waits for it alone."""

from __future__ import annotations

from typing import Final

import pytest

LONGEST: Final = ("test_packaging.py", "test_search.py", "test_prune_guide.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)  # the others stay as they are
