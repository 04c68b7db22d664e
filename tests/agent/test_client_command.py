"""`edge-agent predict` with every kind of file, against a real host."""

from __future__ import annotations

import io
import json
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet_agent.cli import main
from edgefleet_contract.bundle import TensorSpec
from tests.agent.hosting import RunningHost, running
from tests.agent.models import (
    linear,
    linear_spec,
    make_spec,
    pixels,
    with_labels,
)

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "acht", "neuf été")
A, B = TensorSpec("a", "float32", (-1, 2)), TensorSpec("b", "float32", (-1, 2))
SUM, PRODUCT = TensorSpec("sum", "float32", (-1, 2)), TensorSpec("product", "float32", (-1, 2))
LOG_X, LOG_Y = TensorSpec("x", "float32", (-1,)), TensorSpec("y", "float32", (-1,))
MIRRORS: dict[str, tuple[str, tuple[int, ...]]] = {
    "mirror_nhwc_u8": ("uint8", (-1, 2, 3, 3)),
    "mirror_nchw_f32": ("float32", (-1, 1, 2, 5)),
    "mirror_sound_f32": ("float32", (-1, -1)),
    "mirror_sound_i16": ("int16", (-1,)),
    "mirror_scores_i8": ("int8", (-1, 4)),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """A classifier with names, one without, two inputs, and models that give what they take."""
    folder = tmp_path_factory.mktemp("models")
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{name}\n" for name in NAMES), "utf-8")
    ones, log = np.ones((2, 2), np.float32), np.ones(2, np.float32)
    specs = [
        with_labels(linear_spec(folder), labels),
        linear_spec(folder, slot="nameless"),
        make_spec(
            folder, "pair.onnx", {A: ones, B: ones}, {SUM: ones * 2, PRODUCT: ones}, slot="pair"
        ),
        make_spec(folder, "log.onnx", {LOG_X: log}, {LOG_Y: log * 0}, slot="log"),
    ]
    for slot, (dtype, shape) in MIRRORS.items():
        golden = np.ones([max(size, 1) for size in shape], dtype)
        tensors = (TensorSpec("x", dtype, shape), TensorSpec("y", dtype, shape))
        specs.append(
            make_spec(folder, f"{slot}.onnx", {tensors[0]: golden}, {tensors[1]: golden}, slot=slot)
        )
    with running() as here:
        assert here.do(here.host.activate(tuple(specs))) is None
        yield here


def images() -> Any:
    """Pillow, which is not among what a device downloads."""
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(here: RunningHost, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `edge-agent predict`: exit code, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["predict", "--address", f"127.0.0.1:{here.port}", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def printed(run: Run, *words: object) -> Any:
    """What a run that went well printed, as JSON."""
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    return json.loads(out)


def refused(run: Run, *words: object) -> str:
    """What a run that failed said."""
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    return err


def sound(path: Path, samples: np.ndarray, channels: int = 1) -> Path:
    """A WAV file of these samples, interleaved."""
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, samples.itemsize, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def test_json_is_passed_on_from_a_file_and_from_standard_input(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {"predictions": linear(pixels(2)).tolist()}
    file = tmp_path / "x.json"
    file.write_text(json.dumps(pixels(2).tolist()))
    assert printed(run, "digits", file) == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"instances": pixels(2).tolist()})))
    assert printed(run, "digits", "-") == expected


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_an_array_comes_in_any_dtype_that_holds_the_same_numbers(
    run: Run, tmp_path: Path, dtype: str
) -> None:
    np.save(tmp_path / "x.npy", pixels(2).astype(dtype))
    expected = {"predictions": linear(pixels(2)).tolist()}
    assert printed(run, "digits", tmp_path / "x.npy") == expected


def test_one_row_without_a_batch_axis_is_taken(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(1)[0])
    assert printed(run, "digits", tmp_path / "x.npy")["predictions"] == linear(pixels(1)).tolist()


def test_arrays_by_input_name_are_taken_from_one_file(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones((1, 2)), b=np.full((1, 2), 3.0))
    assert printed(run, "pair", tmp_path / "x.npz") == {
        "predictions": [{"sum": [4.0, 4.0], "product": [3.0, 3.0]}]
    }
    np.savez(tmp_path / "z.npz", a=np.ones((1, 2)), z=np.ones((1, 2)))
    assert "pair takes 'a', 'b', found 'a', 'z'" in refused(run, "pair", tmp_path / "z.npz")


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_an_image_gets_the_model_s_size_layout_and_channels(
    run: Run, tmp_path: Path, kind: str
) -> None:
    images().new("RGB", (60, 40), (200, 100, 50)).save(tmp_path / f"x.{kind}", quality=100)
    found = np.array(printed(run, "mirror_nhwc_u8", tmp_path / f"x.{kind}")["predictions"])
    assert found.shape == (1, 2, 3, 3)
    assert np.abs(found - [200, 100, 50]).max() <= 2


def test_an_image_of_the_model_s_size_is_not_touched(run: Run, tmp_path: Path) -> None:
    values = np.arange(10, dtype=np.uint8).reshape(2, 5) * 25
    images().fromarray(values).save(tmp_path / "x.png")
    plain = printed(run, "mirror_nchw_f32", tmp_path / "x.png")["predictions"]
    assert plain == [[values.tolist()]]
    scaled = printed(run, "mirror_nchw_f32", tmp_path / "x.png", "--scale", "255")["predictions"]
    assert np.allclose(scaled, [[values / 255]])


def test_an_image_for_a_model_that_takes_none_says_so(run: Run, tmp_path: Path) -> None:
    images().new("L", (8, 8)).save(tmp_path / "x.png")
    assert "an image is [N, H, W, C] or" in refused(run, "digits", tmp_path / "x.png")
    said = refused(run, "mirror_nhwc_u8", tmp_path / "x.png", "--scale", "255")
    assert "--scale is for inputs of fractions, 'x' is uint8" in said
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert "cannot read the input" in refused(run, "mirror_nhwc_u8", tmp_path / "bad.png")


def test_without_pillow_an_image_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "hint: pip install pillow" in refused(run, "mirror_nhwc_u8", tmp_path / "x.png")


def test_sound_becomes_what_the_model_takes(run: Run, tmp_path: Path) -> None:
    samples = np.array([0, 16384, -32768, 32767], np.int16)
    file = sound(tmp_path / "x.wav", samples)
    assert printed(run, "mirror_sound_i16", file) == {"predictions": samples.tolist()}
    floats = printed(run, "mirror_sound_f32", file)["predictions"]
    assert floats == [(samples / 32768).tolist()]
    both = sound(tmp_path / "two.wav", samples, channels=2)
    assert printed(run, "mirror_sound_i16", both)["predictions"] == [8192, 0]
    low = sound(tmp_path / "low.wav", np.array([128, 192, 0], np.uint8))
    assert printed(run, "mirror_sound_f32", low)["predictions"] == [[0.0, 0.5, -1.0]]


def test_sound_for_a_model_that_takes_none_says_so(run: Run, tmp_path: Path) -> None:
    file = sound(tmp_path / "x.wav", np.zeros(64, np.int16))
    assert "'x' is int8, sound is a float or int16" in refused(run, "mirror_scores_i8", file)
    assert "pair takes 'a', 'b'," in refused(run, "pair", file)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    assert "cannot read the input" in refused(run, "mirror_sound_f32", tmp_path / "bad.wav")


@pytest.mark.parametrize("kind", ["npy", "json"])
def test_the_largest_classes_have_the_labels_of_the_bundle(
    run: Run, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(file, pixels(2))
    else:
        file.write_text(json.dumps(pixels(2).tolist()))
    scores = linear(pixels(2))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    assert printed(run, "digits", file, "--top", 3, "--json") == [
        [{"class": NAMES[i], "index": i, "score": scores[row, i]} for i in order[row].tolist()]
        for row in range(2)
    ]
    code, out, _ = run("digits", file, "--top", 1)
    assert code == 0
    assert out.split("\n\n")[0].split(maxsplit=1) == [
        f"{scores[0, order[0, 0]]:g}",
        NAMES[order[0, 0]],
    ]


def test_classes_without_labels_are_numbered(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(1))
    (row,) = printed(run, "nameless", tmp_path / "x.npy", "--top", 2, "--json")
    assert [item["class"] for item in row] == [str(item["index"]) for item in row]
    np.save(tmp_path / "whole.npy", np.array([[3, -4, 9, 9]]))
    (row,) = printed(run, "mirror_scores_i8", tmp_path / "whole.npy", "--top", 9, "--json")
    assert [(item["index"], item["score"]) for item in row] == [(2, 9), (3, 9), (0, 3), (1, -4)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("digits", "x.npy", "--top", "0"), "--top is 0, expected 1 or more"),
        (("digits", "x.npy", "--scale", "255"), "--scale is for images"),
        (("digits", "none.npy"), "cannot read the input none.npy"),
        (("digits", "none.json"), "cannot read the input none.json"),
        (("nobody", "x.npy"), "model 'nobody' is not served here"),
        (("pair", "x.npz", "--top", "1"), "--top needs one output [N, classes]"),
        (("digits", "x.npz", "--top", "1"), "digits takes 'x', found 'a', 'b'"),
        (("digits", "half.npy"), "has shape [1, 32], expected [-1, 64]"),
        (("mirror_scores_i8", "large.npy"), "has dtype int64, expected int8"),
        (("log", "zero.npy"), "NaN or infinity"),
    ],
)
def test_what_cannot_be_asked_says_why(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", pixels(1))
    np.save("half.npy", pixels(1)[:, :32])
    np.save("large.npy", np.full((1, 4), 300))
    np.save("zero.npy", np.zeros(1))
    np.savez("x.npz", a=np.ones((1, 2)), b=np.ones((1, 2)))
    assert says in refused(run, *words)


def test_where_nobody_answers_the_exit_code_says_try_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", pixels(1))
    address = f"unix:{tmp_path}/serve.sock"
    assert main(["predict", "--address", address, "digits", str(tmp_path / "x.npy")]) == 4
    assert "no agent answers at unix:" in capsys.readouterr().err
