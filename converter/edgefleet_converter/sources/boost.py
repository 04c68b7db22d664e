"""XGBoost and LightGBM in: boosted trees to ONNX, with their own answers. A worker task.

Of a classifier the probabilities are kept, [N, C], of a regressor the prediction, [N, 1]. Inputs
are float32, missing values are NaN and stay out of the data of a recipe. A threshold of LightGBM is
a float64; it is rounded down to a float32 first, which decides every float32 alike.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, load_tensors, save_tensors
from edgefleet_converter.sources import exported
from edgefleet_converter.sources.kind import Kind

INPUT: Final = "input"
_OPSET: Final = 15  # the newest that onnxmltools knows of
_TOOLS: Final = ("xgboost-cpu", "xgboost", "lightgbm", "onnxmltools", "onnx")


def convert(*, kind: str, more: bool) -> dict[str, Json]:
    """`model.onnx` from `source`, and `outputs.npz`: what the trees say to `inputs.npz`.

    With `more` also what they say to `more.npz`, as `more-outputs.npz`.
    """
    inputs = _features("inputs.npz")
    made = _Lightgbm() if Kind(kind) is Kind.LIGHTGBM else _Xgboost(Kind(kind))
    if inputs.shape[1] != made.features:
        raise OperatorError(
            f"the model takes [N, {made.features}], the data has {list(inputs.shape)}",
            hint="the first dimension counts examples; the others must match",
        )
    save_tensors(Path("outputs.npz"), "output", [made.answers(inputs)])
    if more:
        save_tensors(Path("more-outputs.npz"), "output", [made.answers(_features("more.npz"))])
    _save(made.to_onnx(), is_classifier=made.classes > 0)
    versions: dict[str, Json] = dict(exported.tools(*_TOOLS))
    return {"labels": [], "tools": versions}


class _Xgboost:
    """A booster with its objective."""

    def __init__(self, kind: Kind) -> None:
        import xgboost

        name = "source.json" if kind is Kind.XGBOOST_JSON else "source.ubj"
        Path("source").rename(name)
        booster = xgboost.Booster()
        try:
            booster.load_model(name)
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise _unreadable("XGBoost", error) from None
        learner = json.loads(booster.save_config())["learner"]
        objective = learner["objective"]["name"]
        if objective not in ("binary:logistic", "multi:softprob") and not objective.startswith(
            "reg:"
        ):
            raise OperatorError(
                f"the objective {objective} does not come in",
                hint="binary:logistic, multi:softprob and reg:… do",
            )
        is_classifier = not objective.startswith("reg:")
        self.classes = max(2, int(learner["learner_model_param"]["num_class"]))
        self.classes = self.classes if is_classifier else 0
        self.features = int(booster.num_features())
        self._model = xgboost.XGBClassifier() if is_classifier else xgboost.XGBRegressor()
        self._model.load_model(name)
        self._model.get_booster().feature_names = None

    def answers(self, inputs: Array) -> Array:
        said = self._model.predict_proba if self.classes else self._model.predict
        return _columns(said(inputs))

    def to_onnx(self) -> Any:
        from onnxmltools.convert import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        wanted = [(INPUT, FloatTensorType([None, self.features]))]
        return convert_xgboost(self._model, initial_types=wanted, target_opset=_OPSET)


class _Lightgbm:
    """A booster whose thresholds are float32."""

    def __init__(self) -> None:
        import lightgbm

        text = _plain_thresholds(Path("source").read_text("utf-8"))
        try:
            self._booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise _unreadable("LightGBM", error) from None
        objective = re.search(r"^objective=(\w+)", text, re.MULTILINE)
        name = objective.group(1) if objective else ""
        known = ("binary", "multiclass", "regression", "regression_l1", "huber", "quantile")
        if name not in known:
            raise OperatorError(
                f"the objective {name or '(none)'} does not come in", hint=", ".join(known)
            )
        per_round = self._booster.num_model_per_iteration()
        self.classes = {"binary": 2, "multiclass": per_round}.get(name, 0)
        self.features = int(self._booster.num_feature())

    def answers(self, inputs: Array) -> Array:
        said = np.asarray(self._booster.predict(inputs), np.float32)
        return np.stack([1 - said, said], axis=1) if self.classes == 2 else _columns(said)

    def to_onnx(self) -> Any:
        from onnxmltools.convert import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        wanted = [(INPUT, FloatTensorType([None, self.features]))]
        return convert_lightgbm(
            self._booster, initial_types=wanted, target_opset=_OPSET, zipmap=False
        )


def _plain_thresholds(text: str) -> str:
    """A LightGBM model whose thresholds are the largest float32 that are not above them.

    `x <= t` holds for a float32 x if and only if it holds for that one.
    """

    def plain(match: re.Match[str]) -> str:
        values = np.array(match.group(1).split(), np.float64)
        down = values.astype(np.float32)
        above = down.astype(np.float64) > values
        down[above] = np.nextafter(down[above], np.float32(-np.inf))
        return "threshold=" + " ".join(repr(float(value)) for value in down)

    # the sizes of trees at the top are those of the text that it was
    text = re.sub(r"^tree_sizes=.*\n", "", text, count=1, flags=re.MULTILINE)
    return re.sub(r"^threshold=(.*)$", plain, text, flags=re.MULTILINE)


def _features(name: str) -> Array:
    (inputs,) = load_tensors(Path(name), "input")
    if inputs.ndim != 2 or inputs.dtype != np.float32:
        raise OperatorError(
            f"boosted trees take float32 [N, features] here, the data is {inputs.dtype} "
            f"{list(inputs.shape)}",
            hint="save it with array.astype('float32')",
        )
    return inputs


def _columns(said: Any) -> Array:
    found = np.asarray(said, np.float32)
    return found if found.ndim == 2 else found.reshape(len(found), -1)


def _save(model: Any, *, is_classifier: bool) -> None:
    import onnx

    graph = model.graph
    output = graph.output[-1].name  # of a classifier: label, probabilities
    exported.keep_only(graph, output)
    exported.rename(graph, graph.input[0].name, INPUT)
    exported.rename(graph, output, "probabilities" if is_classifier else "output")
    exported.name_batch(graph)
    onnx.save(model, "model.onnx")


def _unreadable(what: str, error: Exception) -> OperatorError:
    first = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
    return OperatorError(
        f"{what} does not load it: {first}", hint="it may be damaged, or saved by a newer version"
    )
