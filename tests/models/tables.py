"""Rows of numbers: flowers, wines and tumours of scikit-learn, and sensor series of aeon."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from tests.models.cache import Package
from tests.models.subject import Subject, classify
from tests.models.trained import convert, fitted

AEON = Package("pypi", "aeon", "1.6.0")
TABLES = {"iris": (load_iris, 0.9), "wine": (load_wine, 0.9)}


def split(load: Any) -> tuple[np.ndarray, ...]:
    """Rows to learn from, rows to be asked about, and the classes of each."""
    data = load()
    x, y = data.data.astype(np.float32), data.target.astype(np.int64)
    return tuple(train_test_split(x, y, test_size=0.3, random_state=7, stratify=y))


def table(name: str) -> Subject:
    """`iris` or `wine`: a perceptron."""
    load, minimum = TABLES[name]
    train_x, x, train_y, y = split(load)
    model = make_pipeline(MinMaxScaler(), MLPClassifier((16,), max_iter=600, random_state=1))
    copies, refused = convert(fitted(model, train_x, train_y), train_x, x, y)
    return Subject(6, name, copies, classify(x, y, "held-out rows", minimum), refused)


def tumours() -> Subject:
    """Breast cancer: logistic regression."""
    train_x, x, train_y, y = split(load_breast_cancer)
    model = make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=500))
    copies, refused = convert(fitted(model, train_x, train_y), train_x, x, y)
    return Subject(6, "breast cancer", copies, classify(x, y, "held-out rows", 0.94), refused)


def forest() -> Subject:
    """Breast cancer: a forest, in operators of the `ai.onnx.ml` domain."""
    train_x, x, train_y, y = split(load_breast_cancer)
    model = fitted(RandomForestClassifier(40, max_depth=6, random_state=1), train_x, train_y)
    copies, refused = convert(model, train_x, x, y)
    play = classify(x, y, "held-out rows", 0.94)
    return Subject(6, "breast cancer (forest)", copies, play, refused)


def series(name: str, minimum: float) -> Subject:
    """A perceptron on a series of aeon, split as published."""
    (train_x, train_y), (x, y) = (read_series(name, part) for part in ("TRAIN", "TEST"))
    model = make_pipeline(MinMaxScaler(), MLPClassifier((64,), max_iter=400, random_state=1))
    copies, refused = convert(fitted(model, train_x, train_y), train_x, x, y)
    return Subject(7, name, copies, classify(x, y, "published test split", minimum), refused)


def read_series(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Series [N, length] and their classes; `part` is TRAIN or TEST, as published."""
    path = AEON.folder() / "aeon" / "datasets" / "data" / name / f"{name}_{part}.ts"
    lines = path.read_text().splitlines()
    rows = [line.split(":") for line in lines if line[:1] not in ("#", "@", "")]
    x = np.array([list(map(float, row[0].split(","))) for row in rows], np.float32)
    return x, np.array([int(row[1]) - 1 for row in rows])
