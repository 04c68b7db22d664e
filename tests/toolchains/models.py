"""Models in the formats of their frameworks; run by the Python of a toolchain, of which it needs
nothing but the frameworks.

    python models.py FAMILY FOLDER [--tiny]

`tiny` ones are the files of tests/vectors/sources, by which the recogniser is tested.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def torch_models(folder: Path, tiny: bool) -> None:
    import torch
    import torch_factory

    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2) if tiny else torch_factory.small_cnn()
    names = ("input",) if tiny else ("image",)
    example = torch.rand(2, 3) if tiny else torch.rand(2, 3, 16, 16)
    batch = {name: {0: torch.export.Dim("batch")} for name in names}
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=batch)
    torch.export.save(program, folder / "exported.pt2")
    torch.jit.script(module).save(folder / "script.pt")
    torch.save(module, folder / "pickled.pt")
    torch.save(module.state_dict(), folder / "weights.pt")
    if tiny:
        torch.save(module, folder / "legacy.pt", _use_new_zipfile_serialization=False)
        return
    torch.onnx.export(
        module,
        (example,),
        folder / "exported.onnx",
        dynamo=True,
        opset_version=18,
        input_names=["image"],
        dynamic_shapes=batch,
        external_data=False,
        verbose=False,
    )
    fixed = torch.export.export(module, (torch.rand(4, 3, 16, 16),))
    torch.export.save(fixed, folder / "fixed.pt2")
    torch.export.save(
        torch.export.export(
            torch_factory.two_inputs(),
            (torch.rand(2, 8), torch.rand(2, 3)),
            dynamic_shapes=({0: torch.export.Dim("n")}, {0: torch.export.Dim("n")}),
        ),
        folder / "two.pt2",
    )


def tensorflow_models(folder: Path, tiny: bool) -> None:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    if tiny:
        taken = keras.Input((3,), name="input")
        given = layers.Dense(2)(taken)
    else:
        taken = keras.Input((16, 16, 3), name="image")
        flow = layers.Conv2D(8, 3, padding="same", activation="relu")(taken)
        flow = layers.BatchNormalization()(flow)
        flow = layers.DepthwiseConv2D(3, strides=2, padding="same")(flow)
        side = layers.Conv2D(8, 1, strides=2)(taken)
        flow = layers.ReLU(6.0)(layers.Add()([flow, side]))
        flow = layers.GlobalAveragePooling2D()(flow)
        given = layers.Dense(5, activation="softmax", name="scores")(flow)
    model = keras.Model(taken, given)
    if not tiny:  # so that the classes differ
        generator = np.random.default_rng(0)
        model.set_weights(
            [
                np.abs(w) if w.ndim == 1 else generator.normal(0, 0.5, w.shape)
                for w in model.get_weights()
            ]
        )
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "only.weights.h5")
    model.export(folder / "saved_model", verbose=False)
    if tiny:
        code = keras.Model(taken, layers.Lambda(lambda x: x * 2, output_shape=(3,))(taken))
        code.save(folder / "lambda.keras")
        code.save(folder / "lambda.h5")


def boost_models(folder: Path, tiny: bool) -> None:
    import lightgbm
    import xgboost

    data = np.load(folder / "train.npz")
    x, y = data["x"], data["y"]
    rounds = 2 if tiny else 50
    small = {"n_estimators": rounds, "max_depth": 2 if tiny else 5}
    three = y + (x[:, 0] > 15)
    kinds = {"classes": y, "three": three}
    for name, truth in kinds.items():
        booster = xgboost.XGBClassifier(**small).fit(x, truth)
        booster.save_model(folder / f"xgboost-{name}.json")
        booster.save_model(folder / f"xgboost-{name}.ubj")
        booster = lightgbm.LGBMClassifier(**small, verbose=-1).fit(x, truth)
        booster.booster_.save_model(folder / f"lightgbm-{name}.txt")
        if tiny:
            return
    xgboost.XGBRegressor(**small).fit(x, x[:, 3]).save_model(folder / "xgboost-number.json")
    number = lightgbm.LGBMRegressor(**small, verbose=-1).fit(x, x[:, 3])
    number.booster_.save_model(folder / "lightgbm-number.txt")


FAMILIES = {"torch": torch_models, "tensorflow": tensorflow_models, "boost": boost_models}

if __name__ == "__main__":
    FAMILIES[sys.argv[1]](Path(sys.argv[2]), "--tiny" in sys.argv)
