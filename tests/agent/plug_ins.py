"""Accelerators as other packages bring them: a real package in a folder, found as any is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CODE = '''
import fcntl
import os
import threading
import time

from edgefleet_agent.runtime.onnx_engine import OnnxSession

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()  # as drivers do


class Accelerator:
    formats = ("onnx",)
    why = ""

    def probe(self):
        return self.why

    def open(self, raw, *, engine, threads, options):
        return OnnxSession(raw, threads=threads)


class Absent(Accelerator):
    why = "there is no /dev/abacus0"


class ForTflite(Accelerator):
    formats = ("tflite",)


class Breaks(Accelerator):
    def __init__(self):
        raise OSError("libabacus.so.4: cannot\\nopen shared object file")


class Leaves(Accelerator):
    def probe(self):
        raise SystemExit(3)


class Picky(Accelerator):
    def open(self, raw, *, engine, threads, options):
        raise ValueError("operator Add: " + options["say"])


class Crashes(Accelerator):
    def open(self, raw, *, engine, threads, options):
        os.abort()


class Wrong(Accelerator):
    """Right for small numbers, as a saturating one is: the first golden vector does not show it."""

    def open(self, raw, *, engine, threads, options):
        return Saturating(OnnxSession(raw, threads=threads))


class Saturating:
    def __init__(self, session):
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs

    def run(self, feeds):
        return {k: v.clip(-150, 150) for k, v in self.session.run(feeds).items()}


class Fails(Wrong):
    """Takes the model, and fails when it is asked for more than one row."""

    def open(self, raw, *, engine, threads, options):
        return Failing(OnnxSession(raw, threads=threads))


class Failing(Saturating):
    def run(self, feeds):
        if len(feeds["x"]) > 1:
            raise KeyError("the device went away")
        return self.session.run(feeds)


class Exclusive(Accelerator):
    """One process at a time has it."""

    def open(self, raw, *, engine, threads, options):
        self.held = os.open(options["device"], os.O_RDONLY)
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.held)
            raise RuntimeError("another process has the device") from None
        return OnnxSession(raw, threads=threads)
'''

NAMES = {
    "good": "Accelerator",
    "absent": "Absent",
    "lite": "ForTflite",
    "breaks": "Breaks",
    "leaves": "Leaves",
    "picky": "Picky",
    "crashes": "Crashes",
    "wrong": "Wrong",
    "fails": "Fails",
    "exclusive": "Exclusive",
    "nowhere": "NotThere",
}


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str = CODE,
    names: dict[str, str] = NAMES,
) -> None:
    """Have `code` as the module of a package whose entry points are these, for our children."""
    folder.mkdir()
    (folder / "abacus.py").write_text(code)
    (folder / "missing_abacus-1.dist-info").mkdir()
    (folder / "missing_abacus-1.dist-info" / "METADATA").write_text("Name: missing-abacus\n")
    (folder / "missing_abacus-1.dist-info" / "entry_points.txt").write_text(
        "[edgefleet.accelerators]\nunimportable = missing_driver:Accelerator\n"
    )
    about = folder / "abacus-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 1\n")
    lines = [f"{name} = abacus:{found}" for name, found in names.items()]
    (about / "entry_points.txt").write_text("\n".join(["[edgefleet.accelerators]", *lines, ""]))
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{before}" if before else str(folder))
