"""Sources in processes of their own: what they are kept from, and what goes wrong in them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgefleet_agent.ports import ModelSpec
from edgefleet_agent.sources import hiding
from edgefleet_contract.bundle import TensorSpec
from tests.agent.hosting import RunningHost, running, until
from tests.agent.models import linear_spec, make_spec, pixels
from tests.agent.sourcing import install_plugin, source

MQTT = {"kind": "mqtt", "on": "every"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A plug-in package on the path of this process and of those that it starts."""
    folder = tmp_path_factory.mktemp("site")
    install_plugin(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture(scope="module")
def here(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    folder = tmp_path_factory.mktemp("host")
    with running(listen=(f"unix:{folder}/serve.sock", "127.0.0.1:0")) as here:
        assert here.do(here.host.activate((linear_spec(folder), window_spec(folder)))) is None
        yield here


def window_spec(folder: Path) -> ModelSpec:
    """A model that gives the window that it takes."""
    x, y = (TensorSpec(name, "float32", (-1, -1, -1)) for name in "xy")
    ones = np.ones((1, 1, 1), np.float32)
    return make_spec(folder, "mirror_window_f32.onnx", {x: ones}, {y: ones}, slot="window")


def test_what_a_source_finds_is_asked_and_told(here: RunningHost, tmp_path: Path) -> None:
    with source(here, tmp_path, kind="synthetic", count=5, queue=5, every_s=0, sink=MQTT) as made:
        until(lambda: len(made.results) == 5)
        until(lambda: made.process.pid is None)
    assert made.process.restarts == 0  # it ended, so nothing followed
    assert made.counts == {"read": 5, "predicted": 5}
    first = made.results[0]
    assert first["version"] == "1"
    assert (first["cause"], first["metadata"]) == ("every", {"number": "0"})
    (output,) = first["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [1, 10])
    assert first["tops"] == [max(range(10), key=lambda i: output["data"][i])]


def test_the_same_seed_finds_the_same(here: RunningHost, tmp_path: Path) -> None:
    said: list[Any] = []
    for seed in (7, 7, 8):
        table = {"kind": "synthetic", "count": 2, "queue": 2, "seed": seed, "sink": MQTT}
        with source(here, tmp_path, **table) as made:
            until(lambda made=made: len(made.results) == 2)
        said.append([result["outputs"] for result in made.results])
    assert said[0] == said[1] != said[2]


def test_a_plugin_is_found_by_its_entry_point_and_has_its_own_sink(
    here: RunningHost, tmp_path: Path
) -> None:
    sink = {"kind": "appending", "path": "said.txt", "deadband": 1000.0, "on": "change"}
    with source(here, tmp_path, kind="trouble", does="work", every_s=0.01, sink=sink) as made:
        until(lambda: made.counts["predicted"] >= 20)
    lines = (tmp_path / "said.txt").read_text().splitlines()
    assert lines[0] == "first 0 1"  # of zeros the model makes its version
    assert len(lines) < made.counts["predicted"]


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("crash", "killed by SIGSEGV"),
        ("raise", "the sensor fell off"),
        ("hang", "gave no sign of life for 1 s"),
        ("lie", "says what no source says"),
        ("shout", "says what no source says"),
        ("roar", "says what no source says"),
    ],
)
def test_a_plugin_that_goes_wrong_takes_only_its_process_and_is_started_again(
    here: RunningHost, tmp_path: Path, caplog: pytest.LogCaptureFixture, does: str, says: str
) -> None:
    table = {"kind": "trouble", "does": does, "every_s": 0.2, "stall_s": 1, "sink": MQTT}
    with source(here, tmp_path, **table) as made:
        until(lambda: made.process.pid is not None)
        first = made.process.pid
        until(lambda: made.process.restarts >= 1)
        until(lambda: made.process.pid not in (None, first))
        until(lambda: [result["metadata"]["n"] for result in made.results].count("0") >= 2)
        assert here.predict("digits", {"instances": pixels(1).tolist()}).status == 200
        assert not psutil.pid_exists(first)
    assert says in caplog.text
    assert "again in 0.5 s" in caplog.text


def test_of_frames_that_the_model_has_no_time_for_the_oldest_are_dropped_and_counted(
    here: RunningHost, tmp_path: Path
) -> None:
    with source(here, tmp_path, kind="trouble", does="flood", sink=MQTT) as made:
        until(lambda: made.counts["dropped"] > 50 and len(made.results) > 20)
    counts = made.counts
    assert counts["read"] - counts["predicted"] - counts["dropped"] in (0, 1, 2)
    numbers = [int(result["metadata"]["n"]) for result in made.results]
    assert numbers == sorted(numbers)
    assert numbers[-1] > len(numbers)  # some between them were never asked


def test_an_output_that_is_too_large_to_publish_is_counted_and_said_and_the_rest_goes_on(
    here: RunningHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in_temp_raw").write_text("1\n")
    files = {"files": ["in_temp_raw"], "window": 10_000, "every_s": 0}
    with source(here, tmp_path, model="window", kind="sensor", **files, sink=MQTT) as made:
        until(lambda: made.counts["failed"] >= 2)
    assert "a result of 10000 values, at most 8192 are published" in caplog.text
    assert made.results == []
    assert made.process.restarts == 0


def test_a_source_waits_for_its_model(tmp_path: Path) -> None:
    with running(listen=(f"unix:{tmp_path}/serve.sock",), zygote=False) as here:
        with source(here, tmp_path, kind="synthetic", every_s=0.05, sink=MQTT) as made:
            until(lambda: made.process.pid is not None)
            assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
            until(lambda: bool(made.results))
            assert here.do(here.host.activate((linear_spec(tmp_path, 2),))) is None
            until(lambda: made.results[-1]["version"] == "2")
        assert made.process.restarts == 0


def test_a_source_that_cannot_be_opened_says_why_and_is_tried_again(
    here: RunningHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [str(tmp_path / "in_*_raw")]
    with source(here, tmp_path, kind="sensor", files=files, window=1, sink=MQTT) as made:
        until(lambda: made.process.restarts == 1)
    assert f"no file matches {files[0]}" in caplog.text
    assert "is the sensor's driver loaded?" in caplog.text


def found_by(here: RunningHost, base: Path, hidden: tuple[Path, ...], **table: Any) -> float:
    """The number that a plug-in fed the model: what it read, or the error that it got."""
    table = {"kind": "trouble", "every_s": 0.01, "sink": MQTT, **table}
    with source(here, base, hidden=hidden, **table) as made:
        until(lambda: bool(made.results))
        return float(made.results[0]["metadata"]["value"])


@pytest.mark.skipif(hiding.landlock_version() < 2, reason="this kernel has no Landlock")
def test_a_plugin_reads_no_key_and_signals_nobody(here: RunningHost, tmp_path: Path) -> None:
    keys = tmp_path / "identity"
    keys.mkdir()
    (keys / "device.key").write_text("secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("plain")
    (tmp_path / "other" / "way").symlink_to(keys / "device.key")
    reads = {"does": "read", "hidden": (keys,)}
    assert found_by(here, tmp_path, path="other/file", **reads) == 5
    for path in ("identity/device.key", "other/way", f"/proc/{os.getpid()}/mem"):
        assert found_by(here, tmp_path, path=path, **reads) == -errno.EACCES
    assert found_by(here, tmp_path, path="identity/device.key", does="read", hidden=()) == 6
    expected = -errno.EPERM if hiding.landlock_version() >= 6 else 0
    agent = {"does": "signal", "pid": os.getpid()}
    assert found_by(here, tmp_path, hidden=(keys,), **agent) == expected


def test_a_child_of_a_source_has_nothing_of_the_agents_but_its_channel(
    here: RunningHost, tmp_path: Path
) -> None:
    with source(here, tmp_path, kind="synthetic", every_s=0.05, sink=MQTT) as made:
        until(lambda: bool(made.results))
        process = psutil.Process(made.process.pid)
        assert not {"CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"} & process.environ().keys()
        fds = Path(f"/proc/{process.pid}/fd")
        targets = [str(fd.readlink()) for fd in fds.iterdir()]
        assert not [path for path in targets if path.startswith(str(tmp_path))]
