"""Files as the inputs of a model: JSON, `.npy`, `.npz`, images and sound, in its dtypes and shapes.

What can be converted without loss is converted, a missing batch axis is added, an image gets the
model's size. Nothing is resampled, normalised or guessed beyond that.
"""

from __future__ import annotations

import json
import sys
import wave
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet_agent.client.messages import Metadata
from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_agent.serving.bodies import BadBody, names
from edgefleet_agent.serving.rest_v1 import parse
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError

_ARRAYS: Final = (".npy", ".npz")
_IMAGES: Final = (".png", ".jpg", ".jpeg")
_SOUNDS: Final = (".wav",)
READABLE: Final = (".json", *_ARRAYS, *_IMAGES, *_SOUNDS)
"""The ends of names of what is read."""
_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_SAMPLES: Final = {1: "u1", 2: "<i2", 4: "<i4"}


def is_json(source: str) -> bool:
    """Whether a source is none of the other kinds."""
    return _suffix(source) not in (*_ARRAYS, *_IMAGES, *_SOUNDS)


def read_json(source: str) -> Json:
    """The value of a JSON file, or of standard input (`-`).

    Raises:
        OperatorError: it cannot be read.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        value: Json = json.loads(text)
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot read the input {source}: {error}") from None
    return value


def read_feeds(source: str, model: Metadata, scale: float | None) -> Tensors:
    """The inputs by name. `scale` divides an image's values.

    Raises:
        OperatorError: it cannot be read, or the model takes no such thing.
    """
    suffix = _suffix(source)
    if scale is not None and suffix not in _IMAGES:
        raise OperatorError(f"--scale is for images, {source} is none")
    try:
        if suffix in _IMAGES:
            return _one(_image(source, _only(model, source), scale), model, source)
        if suffix in _SOUNDS:
            return _one(_sound(source, _only(model, source)), model, source)
        if suffix == ".npy":
            return _one(np.load(source, allow_pickle=False), model, source)
        if suffix == ".npz":
            with np.load(source, allow_pickle=False) as arrays:
                specs = {spec.name: spec for spec in model.inputs}
                return {
                    name: _convert(arrays[name], specs[name]) if name in specs else arrays[name]
                    for name in arrays
                }
        return _parse_json(read_json(source), model)
    except (OSError, EOFError, ValueError, wave.Error, zipfile.BadZipFile, BadBody) as error:
        raise OperatorError(f"cannot read the input {source}: {error}") from None


def _suffix(source: str) -> str:
    return Path(source).suffix.lower()


def _only(model: Metadata, source: str) -> TensorSpec:
    if len(model.inputs) != 1:
        raise OperatorError(
            f"{model.name} takes {names(model.inputs)}, {source} is one array",
            hint="give a .npz file with an array for each input name",
        )
    return model.inputs[0]


def _one(array: Array, model: Metadata, source: str) -> Tensors:
    spec = _only(model, source)
    return {spec.name: _convert(array, spec)}


def _convert(array: Array, spec: TensorSpec) -> Array:
    """The array in the declared dtype where no value changes (but for a fraction's rounding)."""
    if array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]
    if spec.dtype == "string" or array.dtype.kind not in "fiu" or array.dtype == spec.dtype:
        return array
    dtype = np.dtype(spec.dtype)
    if dtype.kind not in "fiu":
        return array
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
        is_same = array.dtype.kind == dtype.kind == "f" or bool((converted == array).all())
    return converted if is_same else array


def _parse_json(value: Json, model: Metadata) -> Tensors:
    body = value if isinstance(value, dict) else {"instances": value}
    calls = parse(json.dumps(body).encode(), model.inputs).calls
    return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def _image(source: str, spec: TensorSpec, scale: float | None) -> Array:
    """[1, H, W, C] or [1, C, H, W], as the input has it, of its size where that is fixed."""
    try:
        from PIL import Image
    except ImportError:
        raise OperatorError("images need Pillow", hint="pip install pillow") from None
    height, width, channels, is_last = image_layout(spec)
    with Image.open(source) as opened:
        image = opened.convert(_MODES[channels])
    size = (image.width if width == -1 else width, image.height if height == -1 else height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    array: Array = np.asarray(image).reshape(1, size[1], size[0], channels)
    if not is_last:
        array = array.transpose(0, 3, 1, 2)
    return scaled(array, spec, scale)


def image_layout(spec: TensorSpec) -> tuple[int, int, int, bool]:
    """Height, width (-1: any) and channels of an input that is an image; whether those are last.

    Raises:
        OperatorError: it is none, or nobody can tell.
    """
    is_last = len(spec.shape) == 4 and spec.shape[3] in _MODES
    is_first = len(spec.shape) == 4 and spec.shape[1] in _MODES
    if is_last == is_first:  # neither, or nobody can tell
        raise OperatorError(
            f"input {spec.name!r} has shape {list(spec.shape)}, an image is [N, H, W, C] or"
            " [N, C, H, W] of 1, 3 or 4 channels",
            hint="make an array of it, and give a .npy file",
        )
    height, width, channels = spec.shape[1:] if is_last else (*spec.shape[2:], spec.shape[1])
    return height, width, channels, is_last


def scaled(array: Array, spec: TensorSpec, scale: float | None) -> Array:
    """The values of an image, 0 to 255, in the input's dtype; fractions are divided by `scale`.

    Raises:
        OperatorError: they do not fit into it.
    """
    if spec.dtype.startswith("float"):
        return (array / (1.0 if scale is None else scale)).astype(spec.dtype)
    if scale is not None:
        raise OperatorError(f"--scale is for inputs of fractions, {spec.name!r} is {spec.dtype}")
    if spec.dtype in ("int8", "bool", "string"):
        raise OperatorError(
            f"input {spec.name!r} is {spec.dtype}, an image's values are 0 to 255",
            hint="make an array of it, and give a .npy file",
        )
    return array.astype(spec.dtype)


def _sound(source: str, spec: TensorSpec) -> Array:
    """The samples, channels averaged, in [-1, 1) or as int16; in the input's rank."""
    with wave.open(source, "rb") as file:
        width, channels = file.getsampwidth(), file.getnchannels()
        if width not in _SAMPLES:
            raise OperatorError(f"{source} has samples of {8 * width} bits, expected 8, 16 or 32")
        whole = np.frombuffer(file.readframes(file.getnframes()), _SAMPLES[width])
    samples = (whole.astype(np.float64) - (128 if width == 1 else 0)) / 2 ** (8 * width - 1)
    samples = samples.reshape(-1, channels).mean(axis=1)
    array: Any
    if spec.dtype == "int16":
        array = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    elif spec.dtype.startswith("float"):
        array = samples.astype(spec.dtype)
    else:
        raise OperatorError(f"input {spec.name!r} is {spec.dtype}, sound is a float or int16")
    shapes = {1: (-1,), 2: (1, -1), 3: (1, -1, 1) if spec.shape[-1] == 1 else (1, 1, -1)}
    rank = len(spec.shape)
    if rank not in shapes:
        raise OperatorError(
            f"input {spec.name!r} has shape {list(spec.shape)}, sound is [N], [1, N] or [1, N, 1]"
        )
    return np.asarray(array.reshape(shapes[rank]))
