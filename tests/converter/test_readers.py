"""Data that is no array: pictures, recordings, tables, functions; what becomes of it."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.examples import Examples, Wish, load_held_out, load_inputs
from edgefleet_converter.readers import audio, folder, images
from edgefleet_converter.readers.reading import Form, form_of
from edgefleet_converter.readers.wish import Audio, Images, Table
from edgefleet_converter.recipe import Data, Recipe, Worker, parse_recipe
from tests.converter import models
from tests.converter.conftest import build


def held_out(path: Path, **wish: object) -> Examples:
    data = Data(held_out="", **wish)  # type: ignore[arg-type]
    return load_held_out(path, wish=Wish(data, Worker()))


def picture(path: Path, *, size: tuple[int, int] = (6, 4), value: int = 200) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size, (value, 10, 20)).save(path)


def recording(path: Path, samples: np.ndarray, *, rate: int = 16000, channels: int = 1) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(samples.dtype.itemsize)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def test_pictures_of_classes_are_read_in_order_with_the_names_of_their_folders(
    tmp_path: Path,
) -> None:
    for name, value in (("cat/b.png", 1), ("cat/a.png", 2), ("ant/c.bmp", 3)):
        picture(tmp_path / "p" / name, value=value)
    (tmp_path / "p" / "cat" / ".DS_Store").write_bytes(b"x")
    found = held_out(tmp_path / "p")
    assert (found.inputs[0].dtype, found.inputs[0].shape) == (np.uint8, (3, 4, 6, 3))
    assert found.inputs[0][:, 0, 0, 0].tolist() == [3, 2, 1]
    assert found.truth is not None
    assert found.truth.tolist() == ["ant", "cat", "cat"]
    assert found.described.examples == 3
    again = held_out(tmp_path / "p")
    assert again.described == found.described
    picture(tmp_path / "p" / "ant" / "c.bmp", value=4)
    assert held_out(tmp_path / "p").described.sha256 != found.described.sha256


def test_pictures_become_alike_by_the_wish_of_the_recipe(tmp_path: Path) -> None:
    picture(tmp_path / "p" / "a.png")
    picture(tmp_path / "p" / "b.png", size=(30, 20))
    with pytest.raises(OperatorError, match=r"b\.png has shape \[20, 30, 3\]") as caught:
        held_out(tmp_path / "p")
    assert "data.images.size" in caught.value.hint
    found = held_out(tmp_path / "p", images=Images(size=(8, 5), mode="L"))
    assert found.inputs[0].shape == (2, 8, 5, 1)
    assert found.truth is None


def test_a_picture_that_lies_on_its_side_is_stood_up(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    (tmp_path / "p").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "p" / "a.jpg", exif=exif)
    assert held_out(tmp_path / "p").inputs[0].shape == (1, 6, 4, 3)


def test_what_is_no_picture_among_pictures_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "p" / "a.png")
    raw = (tmp_path / "p" / "a.png").read_bytes()
    for bad in (b"", b"hello", raw[: len(raw) // 2]):
        (tmp_path / "p" / "b.png").write_bytes(bad)
        with pytest.raises(OperatorError, match=r"reading the held-out data: .*b\.png is no pict"):
            held_out(tmp_path / "p")


def test_a_picture_of_too_many_pixels_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 20_000_000)
    picture(tmp_path / "p.png", size=(5000, 5000))
    with pytest.raises(OperatorError, match="5000 by 5000 pixels"):
        images.image_reader(Images())(tmp_path / "p.png")


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.asarray([0, 16384, -32768], "<i2"), [0.0, 0.5, -1.0]),
        (np.asarray([128, 192, 0], "u1"), [0.0, 0.5, -1.0]),
        (np.asarray([0, 2**30, -(2**31)], "<i4"), [0.0, 0.5, -1.0]),
    ],
)
def test_recordings_are_numbers_from_minus_one_to_one(
    tmp_path: Path, samples: np.ndarray, expected: list[float]
) -> None:
    recording(tmp_path / "r" / "yes" / "a.wav", samples)
    recording(tmp_path / "r" / "no" / "b.wav", samples[:2])
    found = held_out(tmp_path / "r", audio=Audio(samples=3))
    assert found.inputs[0].dtype == np.float32
    assert found.inputs[0].tolist() == [[*expected[:2], 0.0], expected]
    assert found.truth is not None
    assert found.truth.tolist() == ["no", "yes"]


def test_recordings_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    sound = np.zeros(8, "<i2")
    recording(tmp_path / "r" / "a.wav", sound)
    recording(tmp_path / "r" / "b.wav", sound, rate=8000)
    with pytest.raises(OperatorError, match="8000 samples a second, not 16000"):
        held_out(tmp_path / "r")
    with pytest.raises(OperatorError, match="16000 samples a second, not 44100"):
        held_out(tmp_path / "r", audio=Audio(rate=44100))
    recording(tmp_path / "r" / "b.wav", sound, channels=2)
    with pytest.raises(OperatorError, match="2 channels"):
        held_out(tmp_path / "r")
    raw = (tmp_path / "r" / "a.wav").read_bytes()
    for bad in (b"", b"RIFF", raw[:30]):
        (tmp_path / "r" / "b.wav").write_bytes(bad)
        with pytest.raises(OperatorError, match=r"b\.wav is no WAV file"):
            held_out(tmp_path / "r")


def test_a_header_that_promises_more_than_the_file_has_costs_nothing(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", np.zeros(4, "<i2"))
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    raw[40:44] = (2**31).to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(raw)
    with pytest.raises(OperatorError, match=r"more than 100000000 samples"):
        audio.audio_reader(Audio())(tmp_path / "a.wav")


def test_a_table_is_features_and_the_truth(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "width,y,height", "1.5,cat,2", '"3","dog, big",4e1')
    found = held_out(path)
    assert found.inputs[0].dtype == np.float32
    assert found.inputs[0].tolist() == [[1.5, 2.0], [3.0, 40.0]]
    assert found.truth is not None
    assert found.truth.tolist() == ["cat", "dog, big"]
    chosen = held_out(path, table=Table(truth="height", columns=("width",)))
    assert chosen.inputs[0].tolist() == [[1.5], [3.0]]
    assert chosen.truth is not None
    assert chosen.truth.tolist() == [2.0, 40.0]


def test_whole_numbers_in_the_column_of_the_truth_are_classes(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "\ufeffa,y", "1,0", "2,1")
    found = held_out(path)
    assert found.is_classification
    assert found.inputs[0].shape == (2, 1)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a,b"], "holds no examples"),
        (["a,b", "1"], "line 2: 1 cells, not 2"),
        (["a,b", "1,x"], "line 2, column 'b': 'x' is not a number"),
        (["a,b", "1,2", "3,"], "line 3, column 'b': '' is not a number"),
        (["a,a", "1,2"], "two columns of one name"),
        (["y", "1"], "has no column"),
        (["a,b", '"1,2'], "no CSV file"),
        (["a,b", "1,nan"], "NaN or infinity"),
    ],
)
def test_a_table_that_does_not_add_up_is_refused_with_the_place(
    tmp_path: Path, rows: list[str], says: str
) -> None:
    with pytest.raises(OperatorError, match=says):
        held_out(table(tmp_path / "t.csv", *rows))


def test_a_column_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b", "1,2")
    with pytest.raises(OperatorError, match="no column 'c'") as caught:
        held_out(path, table=Table(columns=("a", "c")))
    assert "a, b" in caught.value.hint


def test_a_parquet_file_is_the_same_table(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.bin"
    columns = {"a": [1, 2], "b": [0.5, 1.5], "y": ["no", "yes"]}
    parquet.write_table(arrow.table(columns), path)
    found = held_out(path)
    assert found.inputs[0].tolist() == [[1.0, 0.5], [2.0, 1.5]]
    assert found.truth is not None
    assert found.truth.tolist() == ["no", "yes"]
    parquet.write_table(arrow.table(columns | {"b": [0.5, None]}), path)
    with pytest.raises(OperatorError, match="'b' has 1 missing values"):
        held_out(path)
    parquet.write_table(arrow.table(columns | {"b": ["u", "v"]}), path)
    with pytest.raises(OperatorError, match="'b' is no column of numbers"):
        held_out(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(OperatorError, match="no Parquet file"):
        held_out(path)


def test_a_library_for_tables_that_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError('no', name='pyarrow')")
    (tmp_path / "t").write_bytes(b"PAR1 and so on")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(OperatorError, match="pyarrow is not installed") as caught:
        held_out(tmp_path / "t")
    assert caught.value.hint == "pip install pyarrow"


GENERATOR = """
import itertools
import numpy as np

def pairs():
    for i in range(3):
        yield np.full(4, i, "float32"), i

def named():
    yield {"a": [1.0, 2.0], "b": 3}

def endless():
    for i in itertools.count():
        yield np.zeros(10_000_000)

def broken():
    yield np.zeros(2)
    raise ValueError("the disk is full")

def uneven():
    yield np.zeros(2)
    yield np.zeros(3)

def objects():
    yield object()

def nothing():
    yield from ()

def stuck():
    while True:
        pass
"""


def generator(tmp_path: Path, name: str, **limits: int) -> Examples:
    (tmp_path / "my_data.py").write_text(GENERATOR)
    wish = Wish(Data(held_out=""), Worker(**limits))
    return load_inputs(tmp_path / f"my_data:{name}", what="calibration", wish=wish)


def test_a_function_beside_the_recipe_gives_examples(tmp_path: Path) -> None:
    found = generator(tmp_path, "pairs")
    assert found.inputs[0].tolist() == [[0.0] * 4, [1.0] * 4, [2.0] * 4]
    assert found.truth is not None
    assert found.truth.tolist() == [0, 1, 2]
    assert generator(tmp_path, "named").names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("endless", "yields more than"),
        ("broken", "ValueError: the disk is full"),
        ("uneven", "examples of different shapes"),
        ("objects", "yields object, which is no array"),
        ("nothing", "yields no examples"),
        ("missing", "generator my_data:missing: my_data.py has no function 'missing'"),
    ],
)
def test_a_function_that_does_not_do_is_an_error_that_names_it(
    tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(OperatorError, match=says):
        generator(tmp_path, name)


def test_a_function_that_fails_is_told_with_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        generator(tmp_path, "broken")
    line = GENERATOR.splitlines().index('    raise ValueError("the disk is full")') + 1
    said = f"generator my_data:broken failed at my_data.py:{line}: ValueError: the disk is full"
    assert said in caught.value.message
    assert caught.value.hint == 'the line is: raise ValueError("the disk is full")'


def test_a_function_that_never_ends_is_stopped_by_the_limits_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="reading the calibration data: not done after 2 s"):
        generator(tmp_path, "stuck", timeout_s=2)


def test_a_folder_is_one_thing_or_the_other(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="holds no examples"):
        held_out(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(OperatorError, match=r"a\.txt is neither a picture nor a WAV file"):
        held_out(tmp_path)
    picture(tmp_path / "cat" / "a.png")
    with pytest.raises(OperatorError, match=r"files beside subfolders: a\.txt"):
        held_out(tmp_path)


def test_examples_that_fill_more_than_fits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MAX_BYTES", 100)
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    with pytest.raises(OperatorError, match="the first 1 examples fill"):
        folder.read_files(tmp_path, images.image_reader(Images()))


def test_the_form_is_told_by_content(tmp_path: Path) -> None:
    for name in ("x.csv", "x"):
        np.save(tmp_path / "a.npy", np.zeros(3))
        (tmp_path / "a.npy").rename(tmp_path / name)
        assert form_of(tmp_path / name, what="held-out") is Form.ARRAYS
    table(tmp_path / "t", "a,b", "1,2")
    assert form_of(tmp_path / "t", what="held-out") is Form.CSV


def recipe(folder: Path, **places: str) -> Recipe:
    lines = [f"{key} = '{value}'" for key, value in places.items()]
    return parse_recipe("targets = ['onnx-float32']\n[data]\n" + "\n".join(lines), folder=folder)


def test_a_build_of_a_table_is_that_of_its_arrays(tmp_path: Path) -> None:
    examples = models.examples(40, 4)
    source = models.save(models.mlp(), tmp_path, examples)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "c", "d"], *examples.astype(float).tolist()])
    key = PrivateKey.generate_p256()
    reports = []
    for version, place in enumerate(("held_out.npz", "t.csv"), 1):
        wished = recipe(tmp_path, calibration=place, held_out=place)
        built = build(
            source, wished, out=tmp_path / "out", model="m", version=version, key=key, created=1
        )
        reports.append(built.report)
    first, second = (report.variants[0] for report in reports)
    assert first.sqnr_db == second.sqnr_db
    assert reports[1].held_out.examples == 40


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("images = {size = [0, 4]}", "data.images.size"),
        ("images = {size = [4]}", "data.images.size"),
        ("images = {mode = 'CMYK'}", "data.images.mode"),
        ("audio = {samples = 0}", "data.audio.samples"),
        ("table = {columns = ['a', 'a']}", "data.table.columns"),
        ("table = {sheet = 1}", "sheet"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_with_the_recipe(text: str, says: str) -> None:
    with pytest.raises(OperatorError, match=says):
        parse_recipe(f"targets = ['onnx-as-is']\n[data]\nheld_out = 'h'\n{text}", folder=Path())


def test_an_override_of_a_word_is_no_path() -> None:
    wished = parse_recipe(
        "targets = ['onnx-as-is']\n[data]\nheld_out = 'h'",
        folder=Path(),
        overrides=["data.images.mode=L", "data.table.truth=class"],
    )
    assert (wished.data.images.mode, wished.data.table.truth) == ("L", "class")
