"""What scikit-learn's own operators are said by, against the estimators themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from edgefleet_contract.bundle import Format
from edgefleet_converter.arrays import load_tensors, save_tensors
from edgefleet_converter.metrics import relative_err
from edgefleet_converter.passes import write_tflite
from edgefleet_converter.runners import open_model, run_all
from edgefleet_converter.sources import onnx as onnx_source
from edgefleet_converter.sources import sklearn as sklearn_source

PERCEPTRON = MLPClassifier((8,), solver="lbfgs", max_iter=20, random_state=0)
CASES: dict[str, tuple[Any, Any, set[str]]] = {
    "scaled perceptron": (
        make_pipeline(StandardScaler(), PERCEPTRON),
        load_iris,
        {"Gemm", "Relu", "Softmax"},
    ),
    "scaled perceptron, two classes": (
        make_pipeline(StandardScaler(), PERCEPTRON),
        load_breast_cancer,
        {"Gemm", "Relu", "Sigmoid", "Sub", "Concat"},
    ),
    "logistic regression": (LogisticRegression(max_iter=300), load_iris, {"Gemm", "Softmax"}),
    "scaled logistic regression, two classes": (
        make_pipeline(StandardScaler(), LogisticRegression()),
        load_breast_cancer,
        {"Gemm", "Sigmoid"},
    ),
    "linear regression": (LinearRegression(), load_iris, {"Gemm"}),
    "normalized rows": (
        make_pipeline(Normalizer(), LogisticRegression()),
        load_iris,
        {"Mul", "ReduceSum", "Sqrt", "Max", "Div", "Gemm", "Softmax"},
    ),
}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_pipeline_becomes_plain_onnx_and_tflite(name: str, here: Path) -> None:
    estimator, load, expected = CASES[name]
    x, y = load(return_X_y=True)
    x = x.astype(np.float32)
    joblib.dump(estimator.fit(x, y), "source")
    save_tensors(Path("inputs.npz"), "input", [x])
    sklearn_source.convert(is_pickle=True, trusted_types=[])
    Path("model.onnx").rename("source")
    onnx_source.tidy()
    write_tflite.write()
    model = onnx.load("model.onnx")
    assert {node.op_type for node in model.graph.node} == expected
    domains = [entry.domain for entry in model.opset_import]
    assert "" in domains
    assert len(domains) == len(set(domains))
    (answers,) = load_tensors(Path("outputs.npz"), "output")
    for kind in Format:
        (found,) = run_all(open_model(Path(f"model.{kind}"), kind), (x,))
        assert relative_err(answers, found) < 1e-5, kind
