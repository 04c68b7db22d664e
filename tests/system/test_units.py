"""The systemd units: valid, and as little exposed as their README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = {"edge-agent.service": 20, "fleet.service": 30}


@pytest.fixture(autouse=True)
def _analyze() -> None:
    if not shutil.which("systemd-analyze"):
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_valid(unit: str, tmp_path: Path) -> None:
    """The program it starts is put where the unit looks for it, in a root of the test's own."""
    text = (ROOT / "systemd" / unit).read_text()
    program = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)
    assert program is not None
    for path, mode in ((program[1], 0o755), (f"/etc/systemd/system/{unit}", 0o644)):
        placed = tmp_path / path.lstrip("/")
        placed.parent.mkdir(parents=True)
        placed.write_text(text if path.endswith(unit) else "#!/bin/sh\n")
        placed.chmod(mode)
    system = tmp_path / "usr/lib/systemd"
    system.parent.mkdir(parents=True)
    shutil.copytree("/usr/lib/systemd/system", system / "system", symlinks=True)
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if unit in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.parametrize(("unit", "threshold"), UNITS.items())
def test_a_unit_is_sandboxed(unit: str, threshold: int) -> None:
    done = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true"),
            *(f"--threshold={threshold}", str(ROOT / "systemd" / unit)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:]


def test_the_agents_unit_names_programs_and_folders_that_exist() -> None:
    text = (ROOT / "systemd" / "edge-agent.service").read_text()
    assert "ExecStart=/opt/edgefleet/bin/edge-agent run" in text
    assert "StateDirectory=edge-agent" in text  # the command line takes $STATE_DIRECTORY
