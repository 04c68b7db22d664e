"""What several tests of the device start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent.shelf import Shelf, serve


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """A server of blobs, with none yet."""
    with serve() as running:
        yield running
