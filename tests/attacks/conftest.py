"""A control room, and a device that knows it from before the attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.ground import WAYS, Board, ControlRoom, control_room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[ControlRoom]:
    with control_room(tmp_path / "fleet") as found:
        yield found


@pytest.fixture
def board(tmp_path: Path, room: ControlRoom) -> Board:
    """A device over HTTP that heard of version 1."""
    room.release(1)
    found = Board(tmp_path / "pi", room)
    found.refresh()
    return found


@pytest.fixture(params=WAYS)
def any_board(request: pytest.FixtureRequest, tmp_path: Path, room: ControlRoom) -> Board:
    """The same by HTTP, by retained messages and from a stick."""
    room.release(1)
    found = Board(tmp_path / "pi", room, way=request.param)
    found.refresh()
    return found
