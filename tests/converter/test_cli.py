from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from demo import hostile
from edgefleet_contract import __version__
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_converter import cli
from edgefleet_converter.pipeline import Built
from tests.contract.makers import write_bundle
from tests.converter.conftest import Digits

Captured = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.fixture
def public(key: PrivateKey, tmp_path: Path) -> Path:
    path = tmp_path / "publisher.pub"
    path.write_text(key.public.pem)
    return path


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.path, tmp_path / built.path.name))


def test_a_key_pair_is_written_for_its_owner_alone(tmp_path: Path, capsys: Captured) -> None:
    assert run("keys", "new", tmp_path / "k.pem") == 0
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    private = PrivateKey.load(tmp_path / "k.pem")
    assert private.public == PublicKey.from_pem((tmp_path / "k.pem.pub").read_bytes())
    assert private.public.algorithm == "ECDSA P-256"
    assert private.public.id in capsys.readouterr().out


def test_a_key_is_never_overwritten(tmp_path: Path, capsys: Captured) -> None:
    run("keys", "new", tmp_path / "k.pem")
    before = (tmp_path / "k.pem").read_bytes()
    assert run("keys", "new", tmp_path / "k.pem") == 1
    assert (tmp_path / "k.pem").read_bytes() == before
    assert "exists already" in capsys.readouterr().err


def test_a_passphrase_protects_a_key(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "pass").write_text("swordfish\n")
    assert run("keys", "new", tmp_path / "k.pem", "--passphrase-file", tmp_path / "pass") == 0
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()
    assert run("keys", "show", tmp_path / "k.pem") == 1
    assert "--passphrase-file" in capsys.readouterr().err
    assert run("keys", "show", tmp_path / "k.pem", "--passphrase-file", tmp_path / "pass") == 0
    shown = capsys.readouterr().out
    assert run("keys", "show", tmp_path / "k.pem.pub", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert shown.split()[0] == told["id"]
    assert "swordfish" not in shown


def test_verify_says_what_was_verified(built: Built, public: Path, capsys: Captured) -> None:
    assert run("verify", built.path, "--key", public) == 0
    assert "digits-1: verified, 16 files, " in capsys.readouterr().out
    assert run("verify", built.path, "--key", public, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["version"], told["files"]) == ("digits", 1, 16)


def test_a_changed_bundle_is_refused_with_code_3_and_the_reason(
    copy: Path, public: Path, capsys: Captured
) -> None:
    model = copy / "onnx-int8" / "model.onnx"
    raw = bytearray(model.read_bytes())
    raw[100] ^= 1
    model.write_bytes(raw)
    assert run("verify", copy, "--key", public) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("edge-convert: error: digits-1: onnx-int8/model.onnx")
    assert "(digest_mismatch)" in captured.err


def test_an_extra_file_is_refused(copy: Path, public: Path, capsys: Captured) -> None:
    (copy / "notes.txt").write_text("hello")
    assert run("verify", copy, "--key", public) == 3
    assert "(bundle_mismatch)" in capsys.readouterr().err


def test_a_link_is_refused(copy: Path, public: Path, capsys: Captured) -> None:
    os.link(copy / "labels.txt", copy.parent / "elsewhere")
    assert run("verify", copy, "--key", public) == 3
    assert "(bundle_mismatch)" in capsys.readouterr().err


def test_another_publisher_is_refused_unless_its_key_is_given(
    built: Built, public: Path, tmp_path: Path, capsys: Captured
) -> None:
    run("keys", "new", tmp_path / "other.pem")
    other = tmp_path / "other.pem.pub"
    assert run("verify", built.path, "--key", other) == 3
    assert "(unknown_key)" in capsys.readouterr().err
    assert run("verify", built.path, "--key", other, "--key", public) == 0


def test_a_folder_that_is_no_bundle_is_a_failure_not_a_refusal(
    public: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert run("verify", tmp_path, "--key", public) == 1
    assert "hint" in capsys.readouterr().err


def test_inspect_shows_a_bundle_and_says_that_nothing_was_checked(
    built: Built, capsys: Captured
) -> None:
    assert run("inspect", built.path) == 0
    captured = capsys.readouterr()
    assert "input float32[any, 64]" in captured.out
    assert "tflite-int8/golden.npz" in captured.out
    assert "SQNR" in captured.out
    assert "the signature was not checked" in captured.err
    assert run("inspect", built.path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["signature_checked"] is False
    assert told["manifest"]["model"] == "digits"
    assert told["report"]["variants"][0]["name"] == "onnx-int8"


def test_inspect_shows_the_model_card_the_tools_and_the_origin(
    built: Built, capsys: Captured
) -> None:
    assert run("inspect", built.path) == 0
    out = capsys.readouterr().out
    source = built.report.source.sha256
    for words in ("classification", "540 examples", "onnx-int8: accuracy 0.98", "onnxruntime 1"):
        assert words in out
    assert source in out
    assert run("inspect", built.path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["card"]["tools"] == built.report.tools
    assert told["provenance"]["materials"][0] == {"name": "source", "sha256": source}
    assert told["papers_differ"] == []


def test_papers_of_other_files_are_said_to_be(
    copy: Path, key: PrivateKey, capsys: Captured
) -> None:
    other = hostile.wrong_golden(copy, copy.parent, key, 2)
    assert run("inspect", other) == 0
    said = capsys.readouterr().err
    assert "the papers speak of another onnx-int8/golden.npz than bundle.json does" in said


def test_papers_that_would_act_on_a_terminal_are_refused(copy: Path, capsys: Captured) -> None:
    paper = copy / "sbom.cdx.json"
    paper.write_text(paper.read_text().replace('"classification"', '"\\u001b[2J"'))
    assert run("inspect", copy) == 3
    captured = capsys.readouterr()
    assert "control characters" in captured.err
    assert "\x1b" not in captured.out + captured.err


def test_a_bundle_without_papers_is_inspected_all_the_same(
    tmp_path: Path, capsys: Captured
) -> None:
    folder = write_bundle(tmp_path, PrivateKey.generate_p256())
    assert run("inspect", folder, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["card"], told["provenance"], told["papers_differ"]) == (None, None, [])


def test_a_build_on_the_command_line_writes_a_bundle_and_its_report(
    built: Built, digits: Digits, tmp_path: Path
) -> None:
    run("keys", "new", tmp_path / "k.pem")
    recipe = Path(__file__).parents[2] / "demo" / "digits.toml"
    data = {"calibration": "calibration.npy", "held_out": "held_out.npz", "labels": "labels.txt"}
    command: list[object] = [Path(sys.executable).with_name("edge-convert"), "build"]
    command += [built.path / "onnx-float32" / "model.onnx", "--recipe", recipe]
    command += ["--out", tmp_path / "out", "--model", "digits", "--version", 7]
    command += ["--key", tmp_path / "k.pem", "--json"]
    for name, file in data.items():
        command += ["--set", f"data.{name}={digits.folder / file}"]
    words = [str(word) for word in command]
    home = tmp_path / "home"
    home.mkdir()
    environ = {**os.environ, "HOME": str(home)}
    environ.pop("ORT_DISABLE_TELEMETRY", None)
    said = subprocess.run(words, capture_output=True, text=True, check=False, env=environ)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    assert list(home.iterdir()) == [], "onnxruntime's telemetry would keep a file there"
    told = json.loads(said.stdout)
    assert told["path"] == str(tmp_path / "out" / "digits-7")
    assert told["report"]["variants"][1]["accuracy"]["value"] >= 0.95
    assert run("verify", told["path"], "--key", tmp_path / "k.pem.pub") == 0


def test_the_version_is_told(capsys: Captured) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"edge-convert {__version__}\n"


def test_help_says_what_exit_codes_mean_and_each_command_has_an_example(capsys: Captured) -> None:
    assert run("--help") == 0
    told = capsys.readouterr().out
    assert "Exit codes: 0 done; 1 failed" in told
    for command in ("build", "search", "prune", "bench", "inspect", "diff", "verify", "export"):
        assert f"  {command} " in told
        assert run(command, "--help") == 0
        assert f"Example: edge-convert {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nonsense"], 2, "No such command"),
        (["build"], 2, "Missing argument"),
        (["verify", "x"], 2, "Missing option"),
        (["inspect", "x", "--colour"], 2, "No such option"),
        (["verify", "x", "--key", "none.pub"], 1, "cannot read none.pub"),
        (["keys", "show", "none.pem"], 1, "cannot read none.pem"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_voice(
    words: list[str], code: int, says: str, capsys: Captured
) -> None:
    assert run(*words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("edge-convert: error: ")
    assert says in captured.err
    assert "Traceback" not in captured.err


def test_help_needs_no_model_library() -> None:
    script = (
        "import sys; from edgefleet_converter.cli import run; code = run(['--help']);"
        "heavy = {'onnx', 'onnxruntime', 'sklearn', 'numpy', 'ai_edge_litert'} & set(sys.modules);"
        "sys.exit(9 if heavy else code)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    for command in ("build", "verify", "inspect", "keys", "report", "diff", "export", "schema"):
        assert command in said.stdout


def test_a_missing_extra_explains_itself() -> None:
    script = (
        "import sys; sys.modules['typer'] = None;"
        "from edgefleet_converter.__main__ import main; sys.exit(main())"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert said.stderr == (
        "edge-convert: error: typer is not installed\n"
        "edge-convert: hint: pip install 'edgefleet[converter]'\n"
    )


def test_the_demos_hostile_bundles_are_what_they_claim(
    built: Built, key: PrivateKey, public: Path, tmp_path: Path, capsys: Captured
) -> None:
    stranger = PrivateKey.generate_p256()
    golden = hostile.wrong_golden(built.path, tmp_path, key, 3)
    assert run("verify", golden, "--key", public) == 3
    assert "from its golden one" in capsys.readouterr().err
    for variant in built.manifest.variants:
        assert (golden / variant.golden).read_bytes() != (built.path / variant.golden).read_bytes()
    assert run("verify", hostile.resign(built.path, tmp_path, stranger, 4), "--key", public) == 3
    assert "(unknown_key)" in capsys.readouterr().err
    assert run("verify", hostile.tamper(built.path, tmp_path, key, 5), "--key", public) == 3
    assert "(digest_mismatch)" in capsys.readouterr().err


def test_a_private_key_that_everybody_can_read_is_said_to_be(
    key: PrivateKey, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "publisher.pem"
    key.save(path)
    (tmp_path / "recipe.toml").write_text(
        'targets = ["onnx-float32"]\n[data]\nheld_out = "x.npz"\n'
    )
    asked = ("--recipe", tmp_path / "recipe.toml", "--out", tmp_path / "out", "--key", path)
    for mode, is_told in ((0o600, False), (0o640, False), (0o644, True)):
        path.chmod(mode)
        assert run("build", tmp_path / "none.onnx", *asked, "--model", "m", "--version", 1) == 1
        assert ("can be read by everybody here: chmod 600" in capsys.readouterr().err) == is_told
