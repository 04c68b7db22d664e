"""The crash enumerations, as far as they fit into every run; `make crash-states` has all."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash import runs, table
from tests.crash.disk import ROOT, Base, Linked, Model, Moved, Synced, Unlinked, Wrote, disks
from tests.crash.runs import Row
from tests.crash.table import Count


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of refusals would be logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder in memory, where there is one: a disk that really syncs would only cost time."""
    memory = Path("/dev/shm")  # a fresh folder below it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("run", "least"),
    [
        (lambda room: runs.states(room, every=3), 900),
        (lambda room: runs.kills(room, every=4), 30),
        (lambda room: runs.kills(room, is_real=True, every=24), 3),
        (lambda room: runs.faults(room, every=5), 50),
    ],
    ids=["power-cut", "kill", "kill-with-the-real-runtime", "fault"],
)
def test_a_verified_model_is_servable_after(
    run: Callable[[Path], list[Row]], least: int, room: Path
) -> None:
    rows = run(room)
    assert [word for row in rows for word in row.violations] == []
    assert sum(row.points for row in rows) >= least


def test_without_any_one_fsync_or_rename_something_breaks(room: Path) -> None:
    rows = runs.mutants(room)
    assert len(rows) >= 18
    assert [f"{row.fault}: {row.where}" for row in rows if not row.violations] == []


FOLDER = Base({ROOT: {"old": 1}}, {1: b"old"})
REPLACED = [
    Linked(ROOT, "new", 2),
    Wrote(2, 0, b"new!"),
    Synced(2, ""),
    Moved(Unlinked(ROOT, "new"), Linked(ROOT, "old", 2)),
]


@pytest.mark.parametrize("model", Model)
def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(model: Model) -> None:
    for cut in range(len(REPLACED) + 1):
        assert {disk["old"] for disk in disks(FOLDER, REPLACED[:cut], model)} <= {b"old", b"new!"}


@pytest.mark.parametrize("model", Model)
def test_a_file_that_is_replaced_without_fsync_may_be_anything(model: Model) -> None:
    calls = [call for call in REPLACED if not isinstance(call, Synced)]
    found = {disk["old"] for disk in disks(FOLDER, calls, model)}
    assert {b"old", b"new!", b"", b"n", b"\0\0\0\0"} <= found


def test_a_name_is_not_there_for_good_until_its_folder_is_synced() -> None:
    assert {b"old", b"new!"} == {disk["old"] for disk in disks(FOLDER, REPLACED, Model.POSIX)}
    synced = [*REPLACED, Synced(ROOT, "")]
    assert [disk["old"] for disk in disks(FOLDER, synced, Model.POSIX)] == [b"new!"]


def test_a_file_may_have_both_names_where_two_folders_are_concerned() -> None:
    base = Base({ROOT: {"a": 1, "b": 2}, 1: {"x": 3}, 2: {}}, {3: b"x"})
    calls = [Moved(Unlinked(1, "x"), Linked(2, "y", 3))]
    assert {"a": None, "a/x": b"x", "b": None, "b/y": b"x"} in disks(base, calls, Model.POSIX)
    assert {"a": None, "b": None} in disks(base, calls, Model.POSIX)
    assert {"a": None, "b": None} not in disks(base, calls, Model.JOURNAL)


def test_the_table_is_made_of_several_runs_and_a_control_that_finds_nothing_is_bad(
    tmp_path: Path,
) -> None:
    good, control = Count("cut", "here", 9, 0), Count("no fsync", "there", 3, 2, is_control=True)
    table.write(tmp_path / "1.json", [good])
    table.write(tmp_path / "2.json", [control])
    rows = [row for name in ("1", "2") for row in table.read(tmp_path / f"{name}.json")]
    assert rows == [good, control]
    assert "| cut | here | 9 | 0 |" in table.render(rows)
    assert all(row.is_good for row in rows)
    assert not Count("no fsync", "there", 3, 0, is_control=True).is_good
    assert not Count("cut", "nowhere", 0, 0).is_good
