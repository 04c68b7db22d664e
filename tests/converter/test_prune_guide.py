"""docs/guides/pruning.md, followed: recipes parsed, commands run, tables found again."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edgefleet_contract.bundle import parse_manifest
from edgefleet_converter.cli import run
from edgefleet_converter.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "pruning.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)```", re.DOTALL | re.MULTILINE)


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE) if found == kind]


def test_the_guide_of_pruning_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "prune.toml").write_text(blocks("toml")[0])
    said = ""
    for text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if words[0] == "python":
                command = [sys.executable, *words[1:]]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
            else:
                assert words[0] == "edge-convert"
                assert run([*words[1:], *quick(words)]) == 0, line
                said += capsys.readouterr().out
    for row in blocks("text")[0].splitlines()[1:]:
        cells = [cell.strip() for cell in row.split("│")[1:-1]]
        lambda_, norm0, share = cells[:3]
        assert re.search(rf"{re.escape(lambda_)} +│ +{norm0} +│ +{re.escape(share)}", said), row
    assert blocks("text")[1].strip() in said
    raw = (tmp_path / "build" / "bundles" / "digits-1" / "bundle.json").read_bytes()
    assert [one.name for one in parse_manifest(raw).variants] == ["onnx-int8", "tflite-int8"]


def quick(words: list[str]) -> list[str]:
    """Few runs are measured: the figures of speed are not what is compared."""
    return ["--set", "measure.runs=10"] if "--recipe" in words else []


def test_every_recipe_of_the_guide_is_one() -> None:
    data = {"data": {"held_out": "h.npz", "calibration": "c.npy"}}
    for text in blocks("toml"):
        lines = "" if "data" in tomllib.loads(text) else "[data]\n"
        lines += "" if not lines else "".join(f'{k} = "{v}"\n' for k, v in data["data"].items())
        parse_recipe(f"{text}\n{lines}", folder=Path())
