"""Cameras (a real video file), sensors (files as Linux lays them out), sinks, what is listed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet_agent.cli import main
from edgefleet_contract.bundle import TensorSpec
from tests.agent.hosting import RunningHost, running, until
from tests.agent.models import linear_spec, make_spec
from tests.agent.sourcing import install_plugin, source

EVERY = {"kind": "mqtt", "on": "every"}
MIRRORS: dict[str, tuple[str, tuple[int, ...]]] = {
    "mirror_nhwc_u8": ("uint8", (-1, 2, 3, 3)),
    "mirror_nchw_f32": ("float32", (-1, 1, 2, 5)),
    "mirror_window_f32": ("float32", (-1, -1, -1)),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    folder = tmp_path_factory.mktemp("host")
    specs = [linear_spec(folder)]
    for slot, (dtype, shape) in MIRRORS.items():
        golden = np.ones([max(size, 1) for size in shape], dtype)
        x, y = (TensorSpec(name, dtype, shape) for name in "xy")
        specs.append(make_spec(folder, f"{slot}.onnx", {x: golden}, {y: golden}, slot=slot))
    with running(listen=(f"unix:{folder}/serve.sock", "127.0.0.1:0")) as here:
        assert here.do(here.host.activate(tuple(specs))) is None
        yield here


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Eight frames of one colour each, lossless: frame n is BGR (10 n, 20 n, 30 n)."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10, (64, 48))
    assert writer.isOpened()
    for number in range(8):
        writer.write(np.full((48, 64, 3), [10 * number, 20 * number, 30 * number], np.uint8))
    writer.release()
    return path


def values(result: Any) -> np.ndarray:
    (output,) = result["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


def test_frames_come_in_the_size_the_order_of_colours_and_the_layout_of_the_model(
    here: RunningHost, film: Path
) -> None:
    table = {"kind": "camera", "device": film.name, "every_s": 0, "queue": 8, "sink": EVERY}
    with source(here, film.parent, model="mirror_nhwc_u8", **table) as made:
        until(lambda: len(made.results) == 8)
        until(lambda: made.process.pid is None)  # the film has ended, and so has the source
    assert made.process.restarts == 0
    for number, result in enumerate(made.results):
        assert result["metadata"] == {"frame": str(number)}
        expected = np.full((1, 2, 3, 3), [30 * number, 20 * number, 10 * number])
        assert np.array_equal(values(result), expected)


def test_a_frame_for_a_model_of_grey_fractions_is_grey_and_scaled(
    here: RunningHost, film: Path
) -> None:
    table = {"kind": "camera", "device": str(film), "every_s": 0, "queue": 8, "scale": 255}
    with source(here, film.parent, model="mirror_nchw_f32", sink=EVERY, **table) as made:
        until(lambda: len(made.results) == 8)
    for number, result in enumerate(made.results):
        grey = (0.299 * 30 + 0.587 * 20 + 0.114 * 10) * number / 255
        assert values(result).shape == (1, 1, 2, 5)
        assert np.allclose(values(result), grey, atol=1 / 255)


def test_a_camera_that_is_not_there_is_said(
    here: RunningHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    table = {"kind": "camera", "device": "/dev/video99", "sink": EVERY}
    with source(here, tmp_path, model="mirror_nhwc_u8", **table) as made:
        until(lambda: made.process.restarts == 1)
    assert "/dev/video99 cannot be opened as a camera" in caplog.text


def lay_out(folder: Path, **files: object) -> Path:
    """A device of the Industrial I/O subsystem."""
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def test_sensors_are_read_as_windows_of_samples_in_units(here: RunningHost, tmp_path: Path) -> None:
    """Three axes that share a scale, and a temperature with its own scale and offset."""
    iio = lay_out(
        tmp_path / "devices" / "iio:device0",
        in_accel_x_raw=100,
        in_accel_y_raw=-200,
        in_accel_z_raw=980,
        in_accel_scale=0.01,
        in_temp_raw=50,
        in_temp_scale=0.5,
        in_temp_offset=-10,
        name="lis3dh",
    )
    table = {"kind": "sensor", "files": ["devices/*/in_*_raw"], "window": 4, "every_s": 0.02}
    with source(here, tmp_path, model="mirror_window_f32", sink=EVERY, **table) as made:
        until(lambda: len(made.results) >= 2)
        (iio / "in_accel_x_raw").write_text("300\n")
        until(lambda: bool((values(made.results[-1])[0, :, 0] == np.float32(3.0)).all()))
    first = values(made.results[0])
    assert first.shape == (1, 4, 4)
    assert np.allclose(first, [[[1.0, -2.0, 9.8, 20.0]] * 4])
    names = [f"iio:device0/in_{name}_raw" for name in ("accel_x", "accel_y", "accel_z", "temp")]
    assert made.results[0]["metadata"]["channels"] == ",".join(names)


def test_thermal_zones_are_sensors_and_windows_may_overlap(
    here: RunningHost, tmp_path: Path
) -> None:
    lay_out(tmp_path / "thermal_zone0", temp=48312)
    lay_out(tmp_path / "thermal_zone1", temp=51000)
    table = {"kind": "sensor", "files": ["thermal_zone*/temp"], "scale": 0.001, "every_s": 0.02}
    more = {"window": 5, "stride": 1, "sink": EVERY}
    with source(here, tmp_path, model="mirror_window_f32", **table, **more) as made:
        until(lambda: len(made.results) >= 3)
    assert np.allclose(values(made.results[0]), [[[48.312, 51.0]] * 5])


def test_a_folder_sink_keeps_the_newest(here: RunningHost, tmp_path: Path) -> None:
    sink = {"kind": "folder", "on": "every", "path": "out", "keep": 3}
    with source(here, tmp_path, kind="synthetic", count=8, queue=8, sink=sink, every_s=0) as made:
        until(lambda: made.process.pid is None and made.counts["predicted"] == 8)
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").iterdir())]
    assert [item["metadata"]["number"] for item in kept] == ["5", "6", "7"]
    assert {item["cause"] for item in kept} == {"every"}
    assert np.array(kept[0]["outputs"]["y"]).shape == (1, 10)


def test_a_log_sink_says_the_class_and_no_more(
    here: RunningHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    table = {"kind": "synthetic", "count": 1, "sink": {"kind": "log"}}
    with source(here, tmp_path, **table) as made:
        until(lambda: made.process.pid is None and made.counts["predicted"] == 1)
    (line,) = [line for line in caplog.messages if "digits@1" in line]
    assert "class" in line
    assert line.endswith("(first)")
    assert len(line) < 100


def test_kinds_are_listed_with_what_speaks_against_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/site:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "agent.toml").write_text(
        '[[sources]]\nname = "lab"\nkind = "trouble"\nmodel = "digits"\nsink = { kind = "log" }\n'
    )
    assert main(["sources", "--state", str(tmp_path), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["sources"] == [
        {"name": "lab", "kind": "trouble", "model": "digits", "sink": "log"}
    ]
    kinds = {(kind["use"], kind["name"]): kind for kind in value["kinds"]}
    assert kinds["source", "folder"]["package"] == "built in"
    assert kinds["source", "folder"]["trouble"] == ""
    assert kinds["source", "trouble"]["package"] == "edgefleet-trouble"
    assert kinds["sink", "appending"]["trouble"] == "only on Sundays"
    assert "missing" in kinds["source", "broken"]["trouble"]
    assert len(value["kinds"]) == 11  # its `folder` does not take the place of ours
    assert main(["sources", "--state", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "lab" in out.splitlines()[0]
    assert "only on Sundays" in out
