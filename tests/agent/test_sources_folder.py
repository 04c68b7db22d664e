"""The watched folder, as a real process: what becomes of files, also when it is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import wave
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet_contract.bundle import TensorSpec
from tests.agent.hosting import RunningHost, running, until
from tests.agent.models import asked_spec, linear, linear_spec, make_spec, pixels
from tests.agent.sourcing import RunningSource, source

FAST = {"kind": "folder", "every_s": 0.05}
SOUND = (TensorSpec("x", "int16", (-1,)), TensorSpec("y", "int16", (-1,)))
BUSY = 3_000
IMAGE = tuple(TensorSpec(name, "uint8", (-1, 2, 3, 3)) for name in "xy")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    folder = tmp_path_factory.mktemp("host")
    sound, image = np.ones(1, np.int16), np.ones((1, 2, 3, 3), np.uint8)
    specs = (
        linear_spec(folder),
        asked_spec(folder, "busy.onnx", 1),
        make_spec(
            folder, "mirror_sound_i16.onnx", {SOUND[0]: sound}, {SOUND[1]: sound}, slot="sound"
        ),
        make_spec(
            folder, "mirror_nhwc_u8.onnx", {IMAGE[0]: image}, {IMAGE[1]: image}, slot="image"
        ),
    )
    with running(listen=(f"unix:{folder}/serve.sock", "127.0.0.1:0")) as here:
        assert here.do(here.host.activate(specs)) is None
        yield here


def drop(inbox: Path, name: str, value: object) -> Path:
    """A file that appears whole, as a careful writer makes it."""
    inbox.mkdir(exist_ok=True)
    draft = inbox / f".{name}"
    draft.write_text(json.dumps(value))
    return draft.rename(inbox / name)


def said(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def names(folder: Path) -> set[str]:
    if not folder.exists():
        return set()
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


class Growing:
    """A file that somebody writes, never at rest for long, until the end of the block."""

    def __init__(self, path: Path, whole: bytes) -> None:
        self._path, self._whole = path, whole
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            file.write(self._whole[:16])
            while not self._stop.wait(0.01):
                file.write(b" ")  # JSON does not mind
            file.write(self._whole[16:])


def test_each_file_is_asked_once_and_lies_beside_its_result(
    here: RunningHost, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    with source(here, tmp_path, **FAST) as made:
        drop(inbox, "one.json", pixels(1).tolist())
        np.save(tmp_path / "two.npy", pixels(2))
        (tmp_path / "two.npy").rename(inbox / "two.npy")
        np.savez(tmp_path / "three.npz", x=pixels(3))
        (tmp_path / "three.npz").rename(inbox / "three.npz")
        until(lambda: len(names(inbox / "done")) == 6)
        until(lambda: made.counts == {"read": 3, "predicted": 3})
    assert names(inbox) == {"done", "failed"}
    for name, rows in (("one.json", 1), ("two.npy", 2), ("three.npz", 3)):
        result = said(inbox / "done", name)
        assert (result["source"], result["model"], result["version"]) == ("s", "digits", "1")
        assert result["metadata"] == {"file": name}
        assert np.array_equal(result["outputs"]["y"], linear(pixels(rows)))


def test_sound_and_images_are_read_as_the_command_line_reads_them(
    here: RunningHost, tmp_path: Path
) -> None:
    inbox = tmp_path / "in"
    inbox.mkdir()
    with wave.open(str(inbox / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.array([1, -2, 300], "<i2").tobytes())
    with source(here, tmp_path, model="sound", path="in", **FAST):
        until(lambda: (inbox / "done" / "a.wav").exists())
    assert said(inbox / "done", "a.wav")["outputs"]["y"] == [1, -2, 300]
    images = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    frame = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    images.fromarray(frame).save(inbox / "b.png")
    with source(here, tmp_path, model="image", path="in", **FAST):
        until(lambda: (inbox / "done" / "b.png").exists())
    assert said(inbox / "done", "b.png")["outputs"]["y"] == [frame.tolist()]


def test_what_the_model_does_not_take_is_moved_aside_with_the_reason(
    here: RunningHost, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    with source(here, tmp_path, **FAST) as made:
        drop(inbox, "short.json", [[1.0, 2.0]])
        (inbox / "no.npy").write_bytes(b"no array")
        with (inbox / "huge.npy").open("wb") as file:
            file.truncate(65 * 1024 * 1024)
        until(lambda: len(names(inbox / "failed")) == 6)
        until(lambda: made.counts == {"read": 3, "failed": 3})
        drop(inbox, "good.json", pixels(1).tolist())  # and it goes on
        until(lambda: (inbox / "done" / "good.json.json").exists())
    assert "has shape [1, 2], expected [-1, 64]" in said(inbox / "failed", "short.json")["error"]
    assert "cannot read the input" in said(inbox / "failed", "no.npy")["error"]
    assert "at most 67108864 are read" in said(inbox / "failed", "huge.npy")["error"]


def test_what_grows_is_hidden_or_no_plain_file_is_left_alone(
    here: RunningHost, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    whole = json.dumps(pixels(1).tolist()).encode()
    (inbox / ".hidden.json").write_bytes(whole)
    (inbox / "part.json.tmp").write_bytes(whole)
    (inbox / "notes.txt").write_bytes(whole)
    (tmp_path / "elsewhere.json").write_bytes(whole)
    (inbox / "link.json").symlink_to(tmp_path / "elsewhere.json")
    os.mkfifo(inbox / "pipe.json")
    with (
        source(here, tmp_path, every_s=0.5, kind="folder") as made,
        Growing(inbox / "slow.json", whole),
    ):
        for number in range(2):
            drop(inbox, f"{number}.json", pixels(1).tolist())
            until(lambda number=number: (inbox / "done" / f"{number}.json").exists())
            assert (inbox / "slow.json").exists()
    with source(here, tmp_path, every_s=0.1, kind="folder") as made:
        until(lambda: (inbox / "done" / "slow.json").exists())
        until(lambda: made.counts == {"read": 1, "predicted": 1})
    assert names(inbox / "failed") == set()
    assert names(inbox) >= {"part.json.tmp", "notes.txt", "link.json", "pipe.json"}
    assert (inbox / ".hidden.json").exists()


def test_a_file_that_is_called_like_an_earlier_one_does_not_take_its_place(
    here: RunningHost, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    with source(here, tmp_path, **FAST):
        for number in range(3):
            drop(inbox, "a.json", (pixels(1) * number).tolist())
            until(lambda number=number: len(names(inbox / "done")) == 2 * (number + 1))
    for number, name in enumerate(("a.json", "a~2.json", "a~3.json")):
        asked = json.loads((inbox / "done" / name).read_text())
        assert asked == (pixels(1) * number).tolist()
        result = said(inbox / "done", name)
        assert np.array_equal(result["outputs"]["y"], linear(pixels(1) * number))


def kill(made: RunningSource) -> None:
    pid = made.process.pid
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(120)
def test_kill_9_loses_no_file_and_writes_no_result_twice(
    here: RunningHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet_agent.sources.process._BACKOFF_S", 0.01)
    monkeypatch.setattr("edgefleet_agent.sources.process._LONGEST_BACKOFF_S", 0.01)
    inbox, count, kills = tmp_path / "inbox", 90, 8
    for number in range(count):
        drop(inbox, f"{number:03d}.json", (pixels(1) * (number % 16)).tolist())
    with source(here, tmp_path, **FAST, sink={"kind": "mqtt", "on": "every"}) as made:
        for number in range(kills):
            before = len(names(inbox / "done")) if (inbox / "done").exists() else 0
            enough = min(before + 2 * (1 + number % 4), 2 * count)
            until(
                lambda enough=enough: (
                    (inbox / "done").exists() and len(names(inbox / "done")) >= enough
                )
            )
            assert len(names(inbox)) > 2, "it was done before it was killed often enough"
            kill(made)
        until(lambda: names(inbox) == {"done", "failed"}, timeout=90)
        expected = {f"{number:03d}.json" for number in range(count)}
        until(lambda: {result["metadata"]["file"] for result in made.results} == expected)
    assert names(inbox / "failed") == set()
    assert names(inbox / "done") == expected | {f"{name}.json" for name in expected}
    for number in range(count):
        outputs = said(inbox / "done", f"{number:03d}.json")["outputs"]["y"]
        assert np.array_equal(outputs, linear(pixels(1) * (number % 16)))
    assert len(made.results) <= count + kills  # at least once each, and hardly more


def test_one_that_was_answered_before_a_power_cut_is_only_moved(
    here: RunningHost, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    with source(here, tmp_path, **FAST):
        drop(inbox, "a.json", pixels(1).tolist())
        until(lambda: (inbox / "done" / "a.json").exists())
    (inbox / "done" / "a.json").rename(inbox / "a.json")  # as if the move had not come to pass
    before = (inbox / "done" / "a.json.json").stat().st_mtime_ns
    with source(here, tmp_path, **FAST) as made:
        until(lambda: (inbox / "done" / "a.json").exists())
        drop(inbox, "b.json", pixels(1).tolist())
        until(lambda: made.counts["predicted"] == 1)
    assert (inbox / "done" / "a.json.json").stat().st_mtime_ns == before
    assert names(inbox / "done") == {"a.json", "a.json.json", "b.json", "b.json.json"}


def test_a_file_over_which_the_process_dies_three_times_is_refused(
    here: RunningHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet_agent.sources.process._BACKOFF_S", 0.01)
    inbox = tmp_path / "inbox"
    drop(inbox, "a.json", [[BUSY]])  # it takes long enough to die over
    with source(here, tmp_path, model="busy", **FAST) as made:
        for died in (1, 2, 3):
            until(lambda died=died: reads(inbox) == died)
            assert (inbox / "a.json").exists()
            kill(made)
        until(lambda: (inbox / "failed" / "a.json").exists())
        until(lambda: made.counts["failed"] == 1)
        assert made.process.restarts == 3
    assert "died over it 3 times" in said(inbox / "failed", "a.json")["error"]


def reads(inbox: Path) -> int:
    """Which attempt is noted at the file that is read now."""
    try:
        return int(json.loads((inbox / ".reading").read_text())["died"])
    except (OSError, ValueError):
        return 0


def test_a_model_that_is_gone_condemns_no_file(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    with running(listen=(f"unix:{tmp_path}/serve.sock",), zygote=False) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        with source(here, tmp_path, **FAST) as made:
            drop(inbox, "a.json", pixels(1).tolist())
            until(lambda: (inbox / "done" / "a.json").exists())
            here.do(here.host.deactivate("digits"))
            drop(inbox, "b.json", pixels(1).tolist())
            until(lambda: (inbox / ".reading").exists())
            assert here.do(here.host.activate((linear_spec(tmp_path, 2),))) is None
            until(lambda: (inbox / "done" / "b.json").exists())
            assert names(inbox / "failed") == set()
        assert made.process.restarts == 0
    assert said(inbox / "done", "b.json")["version"] == "2"
