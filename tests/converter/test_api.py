"""The converter from Python: the guide followed, and what the commands do not show."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import edgefleet_converter
from edgefleet_contract.errors import EdgefleetError, OperatorError, PeerError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter import api
from edgefleet_converter.assembly import Built
from edgefleet_converter.cli import app, run
from edgefleet_converter.recipe import load_recipe
from tests.converter.conftest import Digits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "python.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)```", re.DOTALL | re.MULTILINE)


def test_the_guide_of_python_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    names: dict[str, object] = {}
    for kind, text in BLOCK.findall(PAGE):
        if kind == "sh":
            for line in text.splitlines():
                words = shlex.split(line)
                if words[0] == "python":
                    command = [sys.executable, *words[1:]]
                    subprocess.run(command, check=True, capture_output=True, timeout=120)
                else:
                    assert run(words[1:]) == 0
        else:
            exec(text, names)
    assert "quantizing onnx-int8" in capsys.readouterr().out
    assert (tmp_path / "build" / "digits-1.html").is_file()


def test_every_command_has_its_function_and_the_guide_names_it() -> None:
    commands = {(one.name or one.callback.__name__) for one in app.registered_commands}  # type: ignore[union-attr]  # each has one
    for name in commands - {"schema"}:
        function = getattr(api, name.replace("-", "_"))
        assert name.replace("-", "_") in api.__all__
        assert f"`api.{function.__name__}`" in PAGE
        assert inspect.signature(function).return_annotation != inspect.Signature.empty
    for value in (api.Inspected, api.Difference, api.Exported):
        assert value.__dataclass_params__.frozen  # type: ignore[attr-defined]  # as dataclasses have
    assert edgefleet_converter.build is api.build


def test_a_recipe_is_a_path_a_table_or_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('[data]\nheld_out = "h.npz"\ncalibration = "c.npy"\n')
    read = api.read_recipe(path)
    table = {"data": {"held_out": "h.npz", "calibration": "c.npy"}}
    assert read == load_recipe(path)
    assert api.read_recipe(read) is read
    assert api.read_recipe(table) == dataclasses.replace(read, folder=".")
    assert api.read_recipe(table, ["golden.vectors=4"]).golden.vectors == 4
    assert table == {"data": {"held_out": "h.npz", "calibration": "c.npy"}}
    for bad in ({"data": {}}, {**table, "targtes": []}, {**table, "folder": "/"}):
        with pytest.raises(OperatorError):
            api.read_recipe(bad)
    with pytest.raises(OperatorError, match="takes no overrides"):
        api.read_recipe(read, ["golden.vectors=4"])


def test_a_bundle_that_nobody_trusted_signed_is_refused(built: Built) -> None:
    stranger = PrivateKey.generate_p256().public
    for call in (
        lambda: api.verify(built.path, trust=[stranger]),
        lambda: api.verify(built.path, trust=[]),
        lambda: api.diff(built.path, built.path, trust=[stranger]),
        lambda: api.report(built.path, trust=[stranger]),
        lambda: api.bench(built.path, trust=[stranger], cache=False),
        lambda: api.export(built.path, "onnx-int8", out="/nonexistent/x", trust=[stranger]),
    ):
        with pytest.raises(PeerError):
            call()


def test_what_the_disk_refuses_is_an_error_of_the_tree(digits: Digits, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgefleetError, match="file"):
        api.inspect(tmp_path / "file" / "bundle")
    recipe = {"data": {"held_out": "h.npz", "calibration": "c.npy"}}
    with pytest.raises(OperatorError, match="none"):
        api.prune(tmp_path / "none", recipe, cache=False)


def test_a_join_from_a_table_is_refused_as_one_from_a_file_is(key: PrivateKey) -> None:
    with pytest.raises(OperatorError, match="nodes"):
        api.join(
            {"data": {"held_out": "h.npz"}, "models": {}, "nodes": [], "outputs": ["y"]},
            out="/nonexistent",
            model="m",
            version=1,
            key=key,
        )


def test_the_cache_that_is_named_is_the_one_that_is_used(
    digits: Digits, key: PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_CONVERT_CACHE", str(tmp_path / "users"))
    recipe = digits.recipe("targets=['onnx-float32']", "measure.enabled=false", "golden.vectors=1")
    for number, cache in enumerate((False, tmp_path / "mine")):
        out = tmp_path / f"out{number}"
        api.build(digits.model, recipe, out=out, model="d", version=1, key=key, cache=cache)
    assert not (tmp_path / "users").exists()
    assert list((tmp_path / "mine").glob("*.entry"))
    assert (tmp_path / "mine").stat().st_mode & 0o077 == 0
