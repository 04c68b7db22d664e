"""Keras and TensorFlow in: `.keras`, `.h5`, a SavedModel folder. Worker tasks.

A Keras model is exported as a SavedModel; from its `serving_default` signature ONNX and TFLite are
made, and the answers are those of the model that came in. Layers that are code of their author
(`Lambda`) do not come in, nor graphs that read and write files: loading or running would do it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Arrays, load_tensors, save_tensors
from edgefleet_converter.sources import exported
from edgefleet_converter.sources.archive import refuse_keras_code
from edgefleet_converter.sources.kind import Kind

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

SIGNATURE: Final = "serving_default"
_SAVED: Final = "saved"
_REACHING_OUT: Final = frozenset(
    {"ReadFile", "WriteFile", "PyFunc", "PyFuncStateless", "EagerPyFunc", "MatchingFiles"}
)
_TOOLS: Final = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx")
_Call = Callable[[Arrays], Arrays]


def read(*, kind: str) -> dict[str, Json]:
    """The names of what the model in `source` takes, and the versions of what reads it."""
    _, signature, _ = _load(Kind(kind))
    versions: dict[str, Json] = dict(exported.tools(*_TOOLS))
    return {"inputs": list(_taken(signature)), "tools": versions}


def convert(*, kind: str, want_tflite: bool, more: bool) -> dict[str, Json]:
    """`model.onnx`, `model.tflite` if it is wanted, and `outputs.npz`: the model's own answers.

    Those are to `inputs.npz`, and with `more` also to `more.npz`, as `more-outputs.npz`.
    """
    folder, signature, call = _load(Kind(kind))
    inputs = load_tensors(Path("inputs.npz"), "input")
    specs = _taken(signature)
    if len(inputs) != len(specs):
        raise OperatorError(
            f"the model takes {', '.join(specs)}, the data has {len(inputs)} arrays"
        )
    first = next(iter(specs.values())).shape
    batch = first[0] if len(first) else None
    save_tensors(Path("outputs.npz"), "output", exported.answer_all(call, inputs, batch))
    if more:
        others = load_tensors(Path("more.npz"), "input")
        found = exported.answer_all(call, others, batch)
        save_tensors(Path("more-outputs.npz"), "output", found)
    _to_onnx(signature, specs)
    if want_tflite:
        _to_tflite(folder)
    return {"labels": []}


def _load(kind: Kind) -> tuple[str, Any, _Call]:
    """The SavedModel, its signature, and what runs the model that came in."""
    import tensorflow as tf

    folder = "source"
    model = None
    if kind is not Kind.SAVED_MODEL:
        model = _load_keras(kind)
        folder = _SAVED
        model.export(folder, verbose=False)
    else:
        _refuse_reaching_out(Path(folder))
    try:
        loaded = tf.saved_model.load(folder)
    except Exception as error:  # noqa: BLE001 - it may raise anything on a damaged file
        raise OperatorError(f"TensorFlow does not load the SavedModel: {_first(error)}") from None
    signatures = loaded.signatures
    if SIGNATURE not in signatures:
        found = ", ".join(sorted(signatures)) or "none"
        raise OperatorError(
            f"the SavedModel has no signature {SIGNATURE} (it has {found})",
            hint="tf.saved_model.save(model, path, signatures={'serving_default': function})",
        )
    signature = signatures[SIGNATURE]
    names, given = list(_taken(signature)), list(signature.structured_outputs)

    def call(inputs: Arrays) -> Arrays:
        if model is not None:
            said = tf.nest.flatten(model(_keras_inputs(model, names, inputs), training=False))
            return tuple(np.asarray(one) for one in said)
        said = signature(**{n: tf.constant(a) for n, a in zip(names, inputs, strict=True)})
        return tuple(np.asarray(said[name]) for name in given)

    # the loaded object owns the variables of the signature: keep it as long as that
    signature.edgefleet_owner = loaded
    return folder, signature, call


def _keras_inputs(model: Any, names: list[str], inputs: Arrays) -> Any:
    """What the model is called with: alone, or under the names of its inputs."""
    if len(inputs) == 1:
        return inputs[0]
    wanted = [tensor.name for tensor in model.inputs]
    return [inputs[names.index(name)] for name in wanted]


def _load_keras(kind: Kind) -> Any:
    import keras

    name = "source.keras" if kind is Kind.KERAS else "source.h5"
    Path("source").rename(name)
    try:
        if kind is Kind.KERAS:
            return keras.models.load_model(name, compile=False, safe_mode=True)
        refuse_keras_code(_h5_config(name), "the model")
        known = {"DepthwiseConv2D": _of_keras_2(keras.layers.DepthwiseConv2D)}
        return keras.models.load_model(name, known, compile=False, safe_mode=True)
    except OperatorError:
        raise
    except Exception as error:  # noqa: BLE001 - it may raise anything on a damaged file
        raise OperatorError(
            f"Keras {keras.__version__} does not load it: {_first(error)}",
            hint="layers of your own do not come in: export the model with model.export('folder')",
        ) from None


def _of_keras_2(layer: Any) -> Any:
    """A depthwise layer that takes `groups`, which Keras 2 wrote, always 1, and Keras 3 refuses."""

    def made(*, groups: int = 1, **settings: Any) -> Any:
        if groups != 1:
            raise OperatorError(f"a depthwise layer of {groups} groups")
        return layer(**settings)

    return type(layer.__name__, (layer,), {"from_config": staticmethod(lambda c: made(**c))})


def _h5_config(name: str) -> str:
    import h5py

    with h5py.File(name, "r") as file:
        config = file.attrs.get("model_config")
    if config is None:
        raise OperatorError(
            "the HDF5 file has no model_config: it holds weights alone, or is no Keras model",
            hint="save the whole model: model.save('m.keras')",
        )
    return config.decode("utf-8") if isinstance(config, bytes) else str(config)


def _refuse_reaching_out(folder: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:  # noqa: BLE001 - of the protobuf library that TensorFlow has
        raise OperatorError(
            f"saved_model.pb is damaged: {_first(error)}",
            hint="it may be truncated: compare its size with the original",
        ) from None
    found: set[str] = set()
    for meta in saved.meta_graphs:
        found |= {node.op for node in meta.graph_def.node}
        for function in meta.graph_def.library.function:
            found |= {node.op for node in function.node_def}
    if refused := sorted(found & _REACHING_OUT):
        raise OperatorError(
            f"the SavedModel reads or writes files, or runs Python: {', '.join(refused)}",
            hint="export the model without its input pipeline",
        )


def _taken(signature: Any) -> dict[str, Any]:
    """What a signature takes, by name, in the order of its tensors."""
    return dict(signature.structured_input_signature[1])


def _to_onnx(signature: Any, specs: dict[str, Any]) -> None:
    import onnx
    import tensorflow as tf
    import tf2onnx

    names, given = list(specs), list(signature.structured_outputs)

    def serve(*inputs: Any) -> list[Any]:
        said = signature(**dict(zip(names, inputs, strict=True)))
        return [said[name] for name in given]

    wanted = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]
    try:
        model, _ = tf2onnx.convert.from_function(
            tf.function(serve, input_signature=wanted),
            input_signature=wanted,
            opset=exported.OPSET,
        )
    except Exception as error:  # noqa: BLE001 - it may raise anything
        raise OperatorError(f"tf2onnx does not convert it: {_first(error)}") from None
    for value, name in zip(list(model.graph.input), names, strict=True):
        exported.rename(model.graph, value.name, name)
    plain = ["output"] if len(given) == 1 else given
    exported.rename_outputs(model.graph, plain)
    exported.clean(model)
    exported.name_batch(model.graph)
    onnx.save(model, "model.onnx")


def _to_tflite(folder: str) -> None:
    import tensorflow as tf

    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        Path("model.tflite").write_bytes(converter.convert())
    except Exception as error:  # noqa: BLE001 - it may raise anything
        raise OperatorError(
            f"the TFLite converter refuses it: {_first(error)}",
            hint="take the tflite targets out of the recipe; the onnx targets need it not",
        ) from None


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
