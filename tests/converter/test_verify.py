"""`edge-convert verify`: beyond the signature, that models give what was signed, and papers agree.

That programs, state and joins are judged as a device judges them is shown wherever a device tries
them: `trials.tried` asks both.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demo import hostile
from edgefleet_contract.bundle import MANIFEST, parse_manifest, render_manifest
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_converter import cli
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recheck import difference
from edgefleet_converter.verifying import verify

Captured = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.fixture
def public(key: PrivateKey, tmp_path: Path) -> Path:
    path = tmp_path / "publisher.pub"
    path.write_text(key.public.pem)
    return path


def test_every_variant_is_run_on_its_golden_vectors(
    built: Built, public: Path, capsys: Captured
) -> None:
    assert run("verify", built.path, "--trust", public) == 0
    out = capsys.readouterr().out
    for words in ("onnx-int8", "tflite-float32", "onnxruntime 1.", "ai-edge-litert", "verified"):
        assert words in out
    assert run("verify", built.path, "--trust", public, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] is True
    assert told["papers_differ"] == []
    assert [one["vectors"] for one in told["golden"]] == [16, 16, 16, 16]
    assert all(one["worst"] <= one["allowed"] for one in told["golden"])


def test_answers_that_the_model_does_not_give_are_refused_with_code_3(
    built: Built, key: PrivateKey, public: Path, tmp_path: Path, capsys: Captured
) -> None:
    bad = hostile.wrong_golden(built.path, tmp_path, key, 2)
    assert run("verify", bad, "--trust", public, "--json") == 3
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["verified"] is False
    assert all("from its golden one" in one["problem"] for one in told["golden"])
    assert "the papers speak of another onnx-int8/golden.npz" in captured.err
    assert run("verify", bad, "--trust", public, "--no-run") == 3, "the papers differ still"


def test_a_tolerance_that_was_signed_too_small_is_found(
    built: Built, key: PrivateKey, tmp_path: Path
) -> None:
    """Only the manifest differs: the papers agree, the model does not keep what was signed."""
    folder = tmp_path / built.path.name
    shutil.copytree(built.path, folder)
    manifest = parse_manifest((folder / MANIFEST).read_bytes())
    first = manifest.variants[0]
    file = np.load(folder / first.golden)
    moved = {name: file[name] + (2e-6 if name == "output.0" else 0) for name in file.files}
    np.savez(folder / first.golden, **{n: a.astype(file[n].dtype) for n, a in moved.items()})
    found = hostile.resign(folder, tmp_path / "again", key, 2)
    manifest = parse_manifest((found / MANIFEST).read_bytes())
    for e6, problems in ((0, 1), (3, 0)):
        strict = replace(manifest.variants[0], max_abs_err_e6=e6)
        raw = render_manifest(replace(manifest, variants=(strict,)))
        (found / MANIFEST).write_bytes(raw)
        (found / "model.sig").write_bytes(sign_bundle(raw, key))
        ran = verify(found, KeyRing([key.public])).ran
        assert len([one for one in ran if one.problem]) == problems


def test_a_model_that_does_not_load_is_named(built: Built, key: PrivateKey, tmp_path: Path) -> None:
    folder = tmp_path / "other" / built.path.name
    shutil.copytree(built.path, folder)
    for variant in built.manifest.variants:
        (folder / variant.model).write_bytes(b"nothing")
    bad = hostile.resign(folder, tmp_path, key, 2)
    problems = verify(bad, KeyRing([key.public])).problems
    assert any("onnxruntime does not load it" in one for one in problems)
    assert any("LiteRT does not load it" in one for one in problems)


def test_a_model_is_run_only_when_a_trusted_key_signed_it(
    built: Built, tmp_path: Path, capsys: Captured
) -> None:
    run("keys", "new", tmp_path / "other.pem")
    capsys.readouterr()
    assert run("verify", built.path, "--trust", tmp_path / "other.pem.pub") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "(unknown_key)" in captured.err


def test_nothing_is_run_where_that_is_said(built: Built, public: Path, capsys: Captured) -> None:
    assert run("verify", built.path, "--trust", public, "--no-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["golden"] == []


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.5]), 0.5),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), 0.0),
        (np.array([np.nan]), np.array([1.0]), math.inf),
        (np.array([1.0]), np.array([[1.0]]), math.inf),
        (np.array(["a", "b"], object), np.array(["a", "b"]), 0.0),
        (np.array(["a", "c"], object), np.array(["a", "b"]), math.inf),
        (np.array([True]), np.array([False]), 1.0),
        (np.array([], np.float32), np.array([], np.float32), 0.0),
    ],
)
def test_a_difference_is_what_a_device_says(
    found: np.ndarray, expected: np.ndarray, apart: float
) -> None:
    assert difference(found, expected) == apart
