"""What killed programs leave is found and removed; what others work in stays. Workers end, too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgefleet_converter.scratch import PREFIX, locked_folder, scratch, write_whole

LIFELINE = (
    "from edgefleet_converter.lifeline import die_with_parent\n"
    "die_with_parent()\n"
    "print(repr(open(0).read()))\n"
)


def aged(path: Path) -> Path:
    """The path, as if it had last been written to an hour ago."""
    os.utime(path, (time.time() - 3600,) * 2)
    return path


def test_what_a_killed_program_left_goes_and_what_is_worked_in_stays(tmp_path: Path) -> None:
    left, young, other = (tmp_path / name for name in (".m-1.dead", ".m-1.new", ".m-10.dead"))
    for path in (left, young, other):
        path.mkdir()
        (path / "model.onnx").write_bytes(b"x")
    aged(left), aged(other)
    with locked_folder(tmp_path, ".m-1.") as first:
        assert not left.exists()
        aged(first)
        with locked_folder(tmp_path, ".m-1.") as second:
            assert first.is_dir()
            assert second != first
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m-1.new", ".m-10.dead"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / ".m.link").symlink_to(tmp_path / "precious")
    aged(tmp_path / "precious")
    with locked_folder(tmp_path, ".m."):
        pass
    assert (tmp_path / "precious").is_dir()


def test_scratch_folders_are_where_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"{PREFIX}dead"
    left.mkdir()
    aged(left)
    with scratch() as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0  # it holds data
        assert not left.exists()
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "folder", b"x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "page.html"]


def test_a_worker_whose_parent_died_while_it_started_ends() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LIFELINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.close()  # as the kernel does for a process that is killed
    process.stdin = None
    assert process.communicate()[0] == b""
    assert process.returncode == 1


def test_a_worker_whose_parent_lives_reads_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LIFELINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"''\n"  # and waits for nobody's words
        assert process.wait() == 0
