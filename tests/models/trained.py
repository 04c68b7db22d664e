"""Copies of what scikit-learn trained, made by the converter as for a publisher."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.exceptions import ConvergenceWarning

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.pipeline import build
from edgefleet_converter.recipe import parse_recipe
from tests.models.subject import Copy

TARGETS = ("onnx-float32", "tflite-float32", "onnx-int8", "tflite-int8")
_RECIPE = """
targets = [{target}]
[source]
trusted_types = ["sklearn.tree._tree.Tree"]
[data]
calibration = "calibration.npy"
held_out = "held_out.npz"
[measure]
enabled = false
"""


def fitted(model: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """The model, trained; that it stopped early is no matter: what it is worth is measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def convert(
    model: Any,
    train_x: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    targets: Sequence[str] = TARGETS,
) -> tuple[tuple[Copy, ...], dict[Format, str]]:
    """A copy for each target, and of formats that have none what the converter said."""
    copies: list[Copy] = []
    refused: dict[Format, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        skops.io.dump(model, folder / "model.skops")
        np.save(folder / "calibration.npy", train_x[:256])
        np.savez(folder / "held_out.npz", x=x, y=y)
        key = PrivateKey.generate_p256()
        for number, target in enumerate(targets, 1):
            recipe = parse_recipe(_RECIPE.format(target=f'"{target}"'), folder=folder)
            try:
                built = build(
                    folder / "model.skops",
                    recipe,
                    out=folder / "out",
                    model="model",
                    version=number,
                    key=key,
                )
            except OperatorError as error:
                refused.setdefault(Format(target.partition("-")[0]), f"{target}: {error.message}")
                continue
            (variant,) = built.manifest.variants
            raw = (built.path / variant.model).read_bytes()
            warm = tuple({variant.inputs[0].name: x[i : i + 1]} for i in range(3))
            copies.append(Copy(variant.format, raw, f"edge-convert {target}", warm))
    for made in copies:
        refused.pop(made.format, None)
    return tuple(copies), refused
