"""Sources that need no framework beside ours: scikit-learn, ONNX and TFLite files."""

from __future__ import annotations

import warnings
from pathlib import Path

import joblib
import numpy as np
import onnx
import skops.io
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import parse_recipe
from tests.converter import models

TRAINED_ON = 1_200


def save_data(folder: Path) -> None:
    """Handwritten digits that no model here was trained on, and pictures by chance."""
    pixels, _ = load_digits(return_X_y=True)
    np.savez(folder / "digits.npz", x=pixels[TRAINED_ON:].astype(np.float32))
    np.savez(folder / "images.npz", x=models.examples(64, 2, 9, 9))


def save_models(place: Path, folder: Path) -> None:
    """Estimators by skops and joblib, ONNX of one and of a small CNN, TFLite of our own writer."""
    pixels, truth = load_digits(return_X_y=True)
    x, y = pixels[:TRAINED_ON].astype(np.float32), truth[:TRAINED_ON]
    net = MLPClassifier((48,), max_iter=60, random_state=0)
    made = {
        "perceptron": make_pipeline(MinMaxScaler(), net),
        "logistic": LogisticRegression(max_iter=50),
    }
    with warnings.catch_warnings():  # what they are worth does not matter here
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, estimator in made.items():
            skops.io.dump(estimator.fit(x, y), place / f"{name}.skops")
    joblib.dump(made["perceptron"], place / "perceptron.joblib")
    with np.load(folder / "boost" / "train.npz") as file:
        rows, kinds = file["x"], file["y"]
    forest = RandomForestClassifier(40, max_depth=6, random_state=0).fit(rows, kinds)
    skops.io.dump(forest, place / "forest.skops")
    boosted = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(rows, kinds)
    skops.io.dump(boosted, place / "boosted.skops")
    onnx.save(
        to_onnx(made["perceptron"], x[:1], options={"zipmap": False}, target_opset=18),
        place / "labels.onnx",
    )
    onnx.save(models.cnn(), place / "cnn.onnx")
    _save_float(place, folder)
    for name in ("cnn.onnx", "perceptron.tflite"):
        raw = (place / name).read_bytes()
        (place / f"cut{Path(name).suffix}").write_bytes(raw[: len(raw) * 9 // 10])


def _save_float(place: Path, folder: Path) -> None:
    """The perceptron as files of both formats, which a publisher may have from an older bundle."""
    recipe = parse_recipe(
        "targets = ['onnx-float32', 'tflite-float32']\n[data]\nheld_out = 'digits.npz'\n",
        folder=folder,
        overrides=["measure.enabled=false"],
    )
    built = build(
        place / "perceptron.skops",
        recipe,
        out=folder / "plain-out",
        model="p",
        version=1,
        key=PrivateKey.generate_p256(),
    )
    for kind in ("onnx", "tflite"):
        raw = (built.path / f"{kind}-float32" / f"model.{kind}").read_bytes()
        (place / f"perceptron.{kind}").write_bytes(raw)
