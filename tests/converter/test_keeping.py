"""Builds that resume: results of steps are kept, taken again only where nothing is another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter import keeping
from edgefleet_converter.isolation import run_task
from edgefleet_converter.keeping import Keeper
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import Worker, parse_recipe
from edgefleet_converter.search.cache import Cache
from tests.converter.conftest import CREATED
from tests.converter.models import examples, mlp, save

WORKER = [sys.executable, "-P", "-m", "edgefleet_converter.worker"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The worker processes that are started."""
    found: list[object] = []
    real = subprocess.Popen

    def counted(command: list[str], **given: object) -> object:
        if command == WORKER:
            found.append(command)
        return real(command, **given)  # type: ignore[call-overload]  # as it came

    monkeypatch.setattr(subprocess, "Popen", counted)
    return found


def describe(path: Path, keeper: Keeper, **params: str) -> object:
    return run_task(
        "read_onnx",
        what="reading",
        limits=Worker(),
        inputs={"source": path},
        params=dict(params),
        keeper=keeper,
    )


def test_a_result_is_taken_again_until_something_is_another(
    tmp_path: Path, started: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file, another code, another package or a broken entry: the work is done anew."""
    path = save(mlp(), tmp_path, examples(4, 4))
    keeper = Keeper(Cache(tmp_path / "cache"))
    first = describe(path, keeper)
    assert describe(path, keeper) == first
    assert len(started) == 1
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(b"broken")
    assert describe(path, keeper) == first
    assert len(started) == 2
    for function in ("code_digest", "processor", "packages"):
        monkeypatch.setattr(keeping, function, lambda *_: "another")
        describe(path, keeper)
        monkeypatch.undo()
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_what_fails_is_not_kept(tmp_path: Path, started: list[object]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    keeper = Keeper(Cache(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(OperatorError):
            describe(path, keeper)
    assert len(started) == 2


@pytest.mark.parametrize("task", ["measure", "measure_whole", "check_golden", "torch_prune"])
def test_what_is_measured_checked_or_trained_is_never_kept(task: str, tmp_path: Path) -> None:
    keeper = Keeper(Cache(tmp_path))
    assert keeper.key(task, {}, tmp_path, (), None) == ""


def test_what_code_of_a_user_gave_is_never_kept(tmp_path: Path) -> None:
    keeper = Keeper(Cache(tmp_path))
    assert keeper.key("sklearn_to_onnx", {"is_pickle": True}, tmp_path, (), None) == ""
    assert keeper.key("sklearn_to_onnx", {"trusted_types": ["a.B"]}, tmp_path, (), None) == ""
    assert keeper.key("sklearn_to_onnx", {"is_pickle": False}, tmp_path, (), None) != ""


def test_a_large_result_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LARGEST", 4)
    (tmp_path / "made").write_bytes(b"12345")
    cache = Cache(tmp_path / "cache")
    Keeper(cache).keep("key", {}, tmp_path, ["made"])
    assert cache.get("key") is None


def test_what_a_killed_program_left_in_the_cache_goes_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / ".new-old", tmp_path / ".new-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Cache(tmp_path).trim()
    assert [path.name for path in tmp_path.iterdir()] == [".new-new"]


def test_a_build_that_was_killed_is_resumed_and_gives_the_same_bytes(
    key: PrivateKey, tmp_path: Path, started: list[object]
) -> None:
    """SIGKILL once two results are there: the next build does not do those again."""
    source = save(mlp(), tmp_path, examples(32, 4))
    text = 'targets = ["onnx-float32"]\n[measure]\nenabled = false\n'
    text += '[data]\nheld_out = "held_out.npz"\n'
    (tmp_path / "r.toml").write_text(text)
    key.save(tmp_path / "k.pem")
    cache, out = tmp_path / "cache", tmp_path / "out"
    command = [sys.executable, "-m", "edgefleet_converter", "build", str(source)]
    command += ["--recipe", str(tmp_path / "r.toml"), "--out", str(out), "--model", "m"]
    command += ["--key", str(tmp_path / "k.pem"), "--version", "1", "--cache", str(cache)]
    process = subprocess.Popen(command, start_new_session=True)
    until = time.monotonic() + 120
    while len(list(cache.glob("*.entry"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(cache.glob("*.entry")))
    assert not (out / "m-1").exists()
    recipe = parse_recipe(text, folder=tmp_path)
    files, counts = [], []
    for number, kept in enumerate((Cache(cache), Cache(None), Cache(cache))):
        started.clear()
        place = tmp_path / str(number)
        made = build(
            *(source, recipe), out=place, model="m", version=1, key=key, created=CREATED, cache=kept
        )
        counts.append(len(started))
        files.append(
            {
                path.relative_to(made.path): path.read_bytes()
                for path in made.path.rglob("*")
                if path.is_file() and path.name != "model.sig"
            }
        )
    assert files[0] == files[1] == files[2]
    resumed, whole, again = counts
    assert resumed <= whole - done, "fewer still, since copies of one file are run once"
    assert again == 0
