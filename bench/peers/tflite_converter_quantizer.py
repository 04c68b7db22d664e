"""TensorFlow's converter on the Keras source: `Optimize.DEFAULT` with examples, float at the ends.

At its best: also one scale a tensor, integers alone, and ranges taken at each inference.
"""

import json
import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import h5py
import tensorflow as tf  # reads the variable
from quantizing import JOB, calibration, choose, finish, run_tflite


def load():
    """The model; `groups` of depthwise layers, which Keras 3 refuses, is taken out."""
    Path("source.h5").write_bytes(Path("source").read_bytes())
    with h5py.File("source.h5", "r+") as file:
        said = json.loads(file.attrs["model_config"])
        for layer in said["config"]["layers"]:
            if layer["class_name"] == "DepthwiseConv2D":
                layer["config"].pop("groups", None)
        file.attrs["model_config"] = json.dumps(said)
    return tf.keras.models.load_model("source.h5", compile=False)


def made(model, *, examples=True, by_channel=True, integers=False):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel = not by_channel
    if examples:
        x = calibration()
        converter.representative_dataset = lambda: ([x[i : i + 1]] for i in range(len(x)))
    if integers:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def main():
    model = load()
    if JOB["way"] == "default":
        finish(made(model), "DEFAULT, examples")
        return
    choose(
        [
            ("channel", lambda: made(model)),
            ("channel, integers", lambda: made(model, integers=True)),
            ("tensor", lambda: made(model, by_channel=False)),
            ("dynamic", lambda: made(model, examples=False)),
        ],
        run_tflite,
    )


main()
