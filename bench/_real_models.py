"""Every model of the real ones that can be quantized, trained by scikit-learn on real data.

Not here: trees and TF-IDF have nothing to multiply in 8 bits, logistic regression exports as one
operator of `ai.onnx.ml`, and what is published as int8 already is finished.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from bench import _quant_models
from bench._quant_models import Task
from bench._tinyml import tinyml
from bench._trained import trained
from tests.models.mail import mails
from tests.models.tables import TABLES, read_series, split
from tests.models.vision import mnist_rows

TINYML = ("image_classification", "visual_wake_words", "keyword_spotting", "anomaly_detection")


def tasks(toolchain: Path | None) -> list[tuple[str, Callable[[], Task]]]:
    """All models by name; each is made when it is asked for."""
    found = list(_quant_models.tasks())
    found += [("mnist-mlp", _mnist), ("spam", _spam)]
    found += [(name, lambda name=name: _table(name)) for name in TABLES]
    found += [(name, lambda name=name: _series(name)) for name in ("ItalyPowerDemand", "GunPoint")]
    found += [
        (f"mnist-{network}", lambda network=network: trained(network, toolchain))
        for network in ("cnn", "mobilenet")
    ]
    found += [(f"tinyml-{name}", lambda name=name: tinyml(name)) for name in TINYML]
    return found


def _mnist() -> Task:
    x, held_out, y, truth = mnist_rows()
    return _task(
        "mnist-mlp", MLPClassifier((64,), max_iter=15, random_state=1), x, y, held_out, truth
    )


def _spam() -> Task:
    """Words hashed outside; both classes' probabilities are two columns of one column's."""
    train, held, y, truth = mails()
    words = HashingVectorizer(n_features=2048, alternate_sign=False)
    x, held_out = (words.transform(part).toarray().astype(np.float32) for part in (train, held))
    return _task("spam", MLPClassifier((16,), max_iter=30, random_state=1), x, y, held_out, truth)


def _table(name: str) -> Task:
    x, held_out, y, truth = split(TABLES[name][0])
    net = MLPClassifier((16,), max_iter=600, random_state=1)
    return _task(name, make_pipeline(MinMaxScaler(), net), x, y, held_out, truth)


def _series(name: str) -> Task:
    (x, y), (held_out, truth) = (read_series(name, part) for part in ("TRAIN", "TEST"))
    net = MLPClassifier((64,), max_iter=400, random_state=1)
    return _task(name, make_pipeline(MinMaxScaler(), net), x, y, held_out, truth)


def _task(name: str, net: Any, x: Any, y: Any, held_out: Any, truth: Any) -> Task:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(x, y)
    truth = truth.astype(np.int64)
    return Task(name, skops.io.dumps(net), x[:256], held_out, truth, key=repr(net))
