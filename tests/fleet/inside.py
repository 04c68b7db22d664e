"""`fleet …` inside this process: quick, for tests of what it says and not of how it starts."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from edgefleet_fleet.__main__ import main


@dataclass(frozen=True)
class Done:
    """What a finished command leaves; the names are those of `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


def fleet(*words: str | Path, **environ: str) -> Done:
    """Run a command line against the real program's `main`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["fleet", *map(str, words)]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch.dict(os.environ, {**clean, **environ}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main()
    return Done(code, out.getvalue(), err.getvalue())
