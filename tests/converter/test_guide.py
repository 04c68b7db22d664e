"""docs/guides/processing.md, followed to the letter: its files written, its code and lines run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet_agent.ports import TrialReport
from edgefleet_contract.bundle import parse_manifest
from edgefleet_converter.cli import run
from tests.converter.trials import tried

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:`([a-z/]+\.toml)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)


def test_the_guide_of_processing_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    names: dict[str, object] = {}
    page = (ROOT / "docs" / "guides" / "processing.md").read_text()
    said = ""
    for match in BLOCK.finditer(page):
        place, kind, text = match.groups()
        if kind == "toml":
            Path(place).write_text(text)
        elif kind == "python":
            exec(text, names)
        elif kind == "sh":
            for line in text.splitlines():
                command(line)
            said += capsys.readouterr().out
    first = re.search(r"```text\n(1\. .*?)```", page, re.DOTALL)
    assert first is not None
    for line in first[1].splitlines():
        assert line in said, line
    for name, variants in (
        ("seen-1", ("onnx-int8", "tflite-int8")),
        ("both-1", ("onnx", "tflite")),
    ):
        root = tmp_path / "build" / "bundles" / name
        manifest = parse_manifest((root / "bundle.json").read_bytes())
        for variant in variants:
            assert isinstance(tried(root, manifest, variant), TrialReport)


def command(line: str) -> None:
    """A line of the guide: the demo's script, or our command."""
    words = shlex.split(line)
    if words[0] == "python":
        subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True, timeout=120)
        return
    assert words[0] == "edge-convert"
    assert run(words[1:]) == 0, line
