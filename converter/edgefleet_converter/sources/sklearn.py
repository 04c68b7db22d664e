"""scikit-learn in: an estimator to ONNX, with its own answers for comparison. A worker task.

A skops file is loaded only if every type in it is one that skops trusts, one of scikit-learn's own
helper classes named here, or one that the recipe names. A pickle can run any code while it loads,
so it needs `--trust-pickle`. Of a classifier the probabilities are kept, of a regressor the
prediction; they are named plainly.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, load_tensors, save_tensors
from edgefleet_converter.sources.exported import keep_only, rename
from edgefleet_converter.user_code import say

OPSET: Final = {"": 17, "ai.onnx.ml": 3}
INPUT: Final = "input"

# State of a fitted estimator that skops does not list as safe though it holds numbers only.
_HELPERS: Final = (
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
)


def convert(*, is_pickle: bool, trusted_types: list[str]) -> dict[str, Json]:
    """`model.onnx` from `source`, and `outputs.npz`: what the estimator says to `inputs.npz`.

    Returns the class names of a classifier as `labels`, else an empty list.
    """
    estimator = _load_pickle() if is_pickle else _load_skops(trusted_types)
    (examples,) = load_tensors(Path("inputs.npz"), "input")
    _check_features(estimator, examples)
    classes = _classes(estimator)
    # The copy computes in float32; so does the comparison, from the same numbers.
    expected = estimator.predict_proba(examples) if classes else estimator.predict(examples)
    answers = np.asarray(expected, np.float32)
    if answers.ndim == 1:
        answers = answers.reshape(-1, 1)
    save_tensors(Path("outputs.npz"), "output", [answers])
    _to_onnx(estimator, examples, "probabilities" if classes else "output")
    return {"labels": [str(name) for name in classes]}


def _load_skops(trusted_types: list[str]) -> Any:
    import skops.io

    path = Path("source")
    try:
        unknown = skops.io.get_untrusted_types(file=path)
        refused = sorted(set(unknown) - set(_HELPERS) - set(trusted_types))
        if refused:
            raise OperatorError(
                f"the file holds types that are not trusted: {', '.join(refused)}",
                hint="if you trust them, put into the recipe: [source] trusted_types = "
                f"{json.dumps(refused)}",
            )
        return skops.io.load(path, trusted=unknown)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError) as error:
        raise OperatorError(f"the skops file cannot be read: {error}") from None


def _load_pickle() -> Any:
    import joblib

    try:
        return joblib.load("source")
    except Exception as error:  # noqa: BLE001 - a pickle may raise anything
        raise OperatorError(
            f"the pickle cannot be loaded: {type(error).__name__}: {error}",
            hint="a pickle needs the same library versions; skops.io.dump writes a safer file",
        ) from None


def _check_features(estimator: Any, examples: Array) -> None:
    if not hasattr(estimator, "predict"):
        raise OperatorError(f"a {type(estimator).__name__} does not predict")
    wanted = getattr(estimator, "n_features_in_", None)
    if examples.ndim != 2 or (wanted is not None and examples.shape[1] != wanted):
        raise OperatorError(
            f"the model takes [N, {wanted}], the data has {list(examples.shape)}",
            hint="the first dimension counts examples; the others must match",
        )
    if examples.dtype != np.float32:
        raise OperatorError(
            f"the data is {examples.dtype}; scikit-learn models take float32 here",
            hint="save it with array.astype('float32')",
        )


def _classes(estimator: Any) -> list[object]:
    if not hasattr(estimator, "predict_proba"):
        if hasattr(estimator, "classes_"):
            raise OperatorError(
                f"{type(estimator).__name__} gives no probabilities",
                hint="train with probability estimates, or wrap it in CalibratedClassifierCV",
            )
        return []
    return list(estimator.classes_)


def _to_onnx(estimator: Any, examples: Array, name: str) -> None:
    import onnx
    from skl2onnx import to_onnx
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    options = {id(estimator): {"zipmap": False}} if name == "probabilities" else None
    try:
        model = to_onnx(estimator, examples[:1], options=options, target_opset=OPSET)
    except (MissingConverter, MissingShapeCalculator) as error:
        raise OperatorError(
            f"skl2onnx does not convert it: {str(error).splitlines()[0]}",
            hint="HistGradientBoosting and custom transformers are not supported",
        ) from None
    except Exception as error:  # noqa: BLE001 - a converter of a library may raise anything
        raise OperatorError(
            f"skl2onnx does not convert it: {say(error)}",
            hint="leave that part of the pipeline out of the model: do it to the data, or by steps "
            "of the recipe ([[before]])",
        ) from None
    graph = model.graph
    output = graph.output[-1]  # of a classifier: label, probabilities
    keep_only(graph, output.name)
    rename(graph, graph.input[0].name, INPUT)
    rename(graph, output.name, name)
    onnx.save(model, "model.onnx")
