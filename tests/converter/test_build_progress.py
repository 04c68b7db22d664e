"""The bar of a build: on a terminal alone, only after a while, and gone at the end."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from rich.console import Console

from edgefleet_converter.build_progress import progress_bar
from tests.converter.conftest import Digits


def console(*, is_terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=is_terminal, width=100), file


def test_nothing_is_shown_where_there_is_no_terminal() -> None:
    out, file = console(is_terminal=False)
    with progress_bar(out, 2, patience_s=0) as tell:
        tell("quantizing onnx-int8")
    assert file.getvalue() == ""


def test_nothing_is_shown_of_what_is_done_soon() -> None:
    out, file = console(is_terminal=True)
    with progress_bar(out, 2, patience_s=60) as tell:
        tell("quantizing onnx-int8")
    assert file.getvalue() == ""


def test_after_a_while_the_bar_says_what_is_done() -> None:
    out, file = console(is_terminal=True)
    with progress_bar(out, 1, patience_s=0) as tell:
        for step in range(12):  # more than were reckoned
            tell(f"step {step} [of many]")
        until = time.monotonic() + 20
        while "step 11 [of many]" not in file.getvalue() and time.monotonic() < until:
            time.sleep(0.02)
    assert "step 11 [of many]" in file.getvalue()
    assert re.search(r"about \d+ s left", file.getvalue())


def test_a_build_that_fails_leaves_the_terminal_as_it_was() -> None:
    out, file = console(is_terminal=True)
    try:
        with progress_bar(out, 1, patience_s=0):
            until = time.monotonic() + 20
            while "\x1b[?25l" not in file.getvalue() and time.monotonic() < until:
                time.sleep(0.02)
            raise ValueError
    except ValueError:
        pass
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 1


def read_out(terminal: int) -> None:
    with contextlib.suppress(OSError):  # EIO: nobody writes to it any more
        while os.read(terminal, 4096):
            pass


def test_a_real_build_on_a_real_terminal_keeps_stdout_clean(digits: Digits, tmp_path: Path) -> None:
    """stderr is a pseudo-terminal, stdout a pipe: what a script reads holds no bar."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'targets = ["onnx-float32"]\n[measure]\nruns = 10\n[data]\n'
        f'held_out = "{digits.folder}/held_out.npz"\n'
    )
    base = [sys.executable, "-m", "edgefleet_converter"]
    key = str(tmp_path / "k.pem")
    subprocess.run([*base, "keys", "new", key], check=True, capture_output=True)
    command = [*base, "build", str(digits.model), "--recipe", str(recipe), "--key", key]
    command += ["--out", str(tmp_path / "out"), "--model", "digits", "--version", "1", "--json"]
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=read_out, args=(ours,))
    reader.start()  # a terminal that nobody reads is full after 4 KiB
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=120)
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    assert done.returncode == 0
    assert done.stdout.startswith(b"{")
    assert b"\x1b" not in done.stdout
