"""`edge-convert report`, `diff` and `export`: files for people, from finished bundles."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demo import hostile
from edgefleet_contract.bundle import Manifest, parse_manifest, sha256
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter import cli
from edgefleet_converter.comparing import Fate, compare
from edgefleet_converter.export_readme import render_readme
from edgefleet_converter.exporting import place_names
from edgefleet_converter.page.told import Told, read_told
from edgefleet_converter.pipeline import Built
from edgefleet_converter.transfer_size import cost
from edgefleet_fleet.delta_encoder import encode
from tests.converter.conftest import CREATED, Digits, build

Captured = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.fixture
def public(key: PrivateKey, tmp_path: Path) -> Path:
    path = tmp_path / "publisher.pub"
    path.write_text(key.public.pem)
    return path


@pytest.fixture(scope="module")
def second(digits: Digits, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version: two variants less, other golden vectors."""
    recipe = digits.recipe(
        "targets=['onnx-int8', 'tflite-int8']", "measure.enabled=false", "golden.vectors=4"
    )
    out = tmp_path_factory.mktemp("second")
    return build(
        digits.model, recipe, out=out, model="digits", version=2, key=key, created=CREATED + 9
    ).path


def test_a_page_goes_to_a_file_and_says_who_signed(
    built: Built, public: Path, key: PrivateKey, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "report.html"
    assert run("report", built.path, "--trust", public, "--out", out) == 0
    page = out.read_text()
    assert page.startswith("<!doctype html>\n")
    assert key.public.id in page
    assert capsys.readouterr() == ("", "")
    assert run("report", built.path, "--out", out) == 0, "a page is made again, not kept"
    assert "signature not checked" in out.read_text()
    assert "the signature was not checked" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_page_goes_to_stdout_where_no_file_is_named(built: Built) -> None:
    command = [sys.executable, "-m", "edgefleet_converter", "report", str(built.path)]
    said = subprocess.run(command, capture_output=True, check=True)
    assert said.stdout.startswith(b"<!doctype html>\n")


def test_no_page_is_made_of_a_bundle_that_was_changed(
    built: Built, public: Path, tmp_path: Path, capsys: Captured
) -> None:
    copy = tmp_path / built.path.name
    shutil.copytree(built.path, copy)
    (copy / "report.json").write_text("{}")
    out = tmp_path / "report.html"
    assert run("report", copy, "--trust", public, "--out", out) == 3
    assert "(digest_mismatch)" in capsys.readouterr().err
    assert not out.exists()


def test_a_page_is_not_written_into_the_bundle(
    built: Built, public: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert run("report", built.path, "--out", built.path / "report.html") == 1
    assert "lies in the bundle" in capsys.readouterr().err
    assert run("report", built.path, "--out", tmp_path / "none" / "r.html") == 1
    assert run("report", built.path, "--out", tmp_path) == 1
    assert run("verify", built.path, "--trust", public, "--no-run") == 0


def test_a_build_writes_its_page_and_says_so_early_if_it_cannot(
    built: Built, digits: Digits, tmp_path: Path, capsys: Captured
) -> None:
    run("keys", "new", tmp_path / "k.pem")
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'targets = ["onnx-float32"]\n[measure]\nenabled = false\n[data]\n'
        f'held_out = "{digits.folder}/held_out.npz"\n'
    )
    command: list[object] = ["build", built.path / "onnx-float32" / "model.onnx"]
    command += ["--recipe", recipe, "--out", tmp_path / "out", "--model", "digits"]
    command += ["--version", 3, "--key", tmp_path / "k.pem", "--report"]
    assert run(*command, tmp_path / "none" / "r.html") == 1
    assert run(*command, tmp_path / "out" / "digits-3" / "r.html") == 1
    assert not (tmp_path / "out").exists(), "nothing was built"
    assert run(*command, tmp_path / "r.html") == 0
    assert '<span class="tag good">signed</span>' in (tmp_path / "r.html").read_text()


def test_the_diff_of_a_bundle_and_itself_is_nothing(built: Built, capsys: Captured) -> None:
    assert run("diff", built.path, built.path) == 0
    assert "digits-1 and digits-1 are the same" in capsys.readouterr().out


def test_a_diff_tells_variants_figures_files_and_what_they_cost(
    built: Built, second: Path, public: Path, capsys: Captured
) -> None:
    assert run("diff", built.path, second, "--trust", public) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for words in ("version", "variants", "p50_us", "onnx-float32/model.onnx", "removed"):
        assert words in captured.out
    assert run("diff", built.path, second, "--json", "--trust", public) == 0
    told = json.loads(capsys.readouterr().out)
    fates = {file["path"]: file["fate"] for file in told["files"]}
    assert fates["onnx-int8/model.onnx"] == "same"
    assert fates["onnx-int8/golden.npz"] == "changed"
    assert fates["tflite-float32/model.tflite"] == "removed"
    assert set(told["costs"]) == {path for path, fate in fates.items() if fate == "changed"}
    golden = told["costs"]["onnx-int8/golden.npz"]
    assert 0 < golden["size"] <= (second / "onnx-int8/golden.npz").stat().st_size
    assert {"what": "version", "before": "1", "after": "2"} in told["said"]
    assert run("diff", second, built.path, "--json") == 0
    back = json.loads(capsys.readouterr().out)
    assert back["costs"]["onnx-float32/model.onnx"]["is_delta"] is False


def test_a_diff_of_a_stranger_is_refused_where_a_key_is_given(
    built: Built, public: Path, tmp_path: Path, capsys: Captured
) -> None:
    other = hostile.resign(built.path, tmp_path, PrivateKey.generate_p256(), 5)
    assert run("diff", built.path, other, "--trust", public) == 3
    assert "(unknown_key)" in capsys.readouterr().err
    assert run("diff", built.path, other) == 0


def test_what_changed_in_a_variant_is_named(built: Built) -> None:
    manifest = built.manifest
    first = replace(manifest.variants[0], max_abs_err_e6=9, runtimes={"onnxruntime": "1.30"})
    changed = replace(manifest, variants=(first, *manifest.variants[1:]))
    found = compare(manifest, changed, Told(), Told())
    assert [one.what for one in found.said] == ["onnx-int8 tolerance", "onnx-int8 runtimes"]
    assert not found.is_same
    assert all(file.fate is Fate.SAME for file in found.files)


def test_a_figure_that_was_not_measured_before_is_a_change(built: Built) -> None:
    before = read_told({"variants": [{"name": "a", "sqnr_db": 40}]})
    after = read_told({"variants": [{"name": "a", "sqnr_db": 40, "accuracy": 0.9}]})
    (change,) = compare(built.manifest, built.manifest, before, after).figures
    assert (change.figure, change.before, change.after) == ("accuracy", None, 0.9)


def test_a_file_that_is_like_the_old_one_costs_little() -> None:
    old = bytes(range(256)) * 2000
    chance = random.Random(1)
    noise = chance.randbytes(300_000)
    assert cost(old, old).size < 200
    assert cost(noise, noise[:150_000] + b"new" + noise[150_000:]).size < 2000
    assert cost(noise, chance.randbytes(300_000)).is_delta is False
    assert cost(b"", b"abc") == cost(b"x" * 40_000_000, b"abc")


def test_the_fleet_sends_no_more_than_was_estimated_or_a_little() -> None:
    """Numbers of which a few change, and of which all do: held against what the fleet makes."""
    rng = np.random.default_rng(5)
    old = rng.normal(size=100_000).astype(np.float32)
    few = old.copy()
    few[rng.integers(0, len(old), 1000)] += 0.01
    for new in (few, old + rng.normal(size=len(old)).astype(np.float32) * 1e-3):
        out = io.BytesIO()
        made = encode(memoryview(old.tobytes()), memoryview(new.tobytes()), out)
        sent = len(out.getvalue()) if made else new.nbytes
        assert sent <= 1.1 * cost(old.tobytes(), new.tobytes()).size + 500


def test_an_exported_variant_runs_by_its_own_readme(
    built: Built, public: Path, tmp_path: Path
) -> None:
    """The code in the README is run as it stands there, in the folder, without edgefleet."""
    for name, model in (("onnx-int8", "model.onnx"), ("tflite-int8", "model.tflite")):
        out = tmp_path / name
        assert run("export", built.path, name, "--out", out, "--trust", public) == 0
        assert sorted(path.name for path in out.iterdir()) == sorted(
            ["README.md", "drift.json", "golden.npz", "labels.txt", model]
        )
        assert sha256((out / model).read_bytes()) == built.manifest.file(f"{name}/{model}").sha256
        text = (out / "README.md").read_text()
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        script = f"{code}\nassert answers[0].shape == (1, 10), answers\n"
        subprocess.run([sys.executable, "-I", "-c", script], cwd=out, check=True, timeout=60)
        assert "input  float32  [any, 64]" in text


def test_an_export_overwrites_nothing(built: Built, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "plain"
    assert run("export", built.path, "onnx-int8", "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run("export", built.path, "tflite-int8", "--out", out) == 1
    assert "exists already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run("export", built.path, "onnx-int9", "--out", tmp_path / "x") == 1
    assert "it has: onnx-int8, tflite-int8" in capsys.readouterr().err
    assert run("export", built.path, "onnx-int8", "--out", built.path / "x") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_a_changed_file_is_not_exported(built: Built, tmp_path: Path, capsys: Captured) -> None:
    copy = tmp_path / built.path.name
    shutil.copytree(built.path, copy)
    (copy / "labels.txt").write_text("zero\n")
    assert run("export", copy, "onnx-int8", "--out", tmp_path / "x") == 3
    assert "(digest_mismatch)" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_files_of_one_name_keep_their_folders() -> None:
    paths = ["a/model.onnx", "b/model.onnx", "labels.txt", "steps/readme.md"]
    assert place_names(paths) == {
        "a/model.onnx": "a/model.onnx",
        "b/model.onnx": "b/model.onnx",
        "labels.txt": "labels.txt",
        "steps/readme.md": "steps/readme.md",
    }


def test_what_others_wrote_cannot_close_its_block(built: Built) -> None:
    manifest = hostile_names(built.manifest)
    variant = manifest.variants[0]
    text = render_readme(manifest, variant, {variant.model: "model.onnx"}, None)
    blocks = re.findall(r"^(`{3,})\w+$(.*?)^\1$", text, re.DOTALL | re.MULTILINE)
    outside = re.sub(r"^(`{3,})\w+$.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    assert "<script>" not in outside
    compile(blocks[2][1], "README", "exec")


def hostile_names(manifest: Manifest) -> Manifest:
    first = manifest.variants[0]
    name = "x\n```\n<script>\"'\\"
    return replace(
        manifest,
        variants=(replace(first, inputs=(replace(first.inputs[0], name=name),)),),
    )


def test_a_bundle_that_is_no_bundle_is_a_failure(tmp_path: Path, capsys: Captured) -> None:
    for words in (
        ["report", tmp_path],
        ["diff", tmp_path, tmp_path],
        ["export", tmp_path, "x", "--out", tmp_path / "y"],
    ):
        assert run(*words) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("edge-convert: error: cannot read ")


def test_the_manifest_of_the_second_version_is_what_was_compared(second: Path) -> None:
    assert parse_manifest((second / "bundle.json").read_bytes()).version == 2
