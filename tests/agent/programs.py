"""Signed bundles with programs, of the small models: what they must give is computed by hand here.

Pictures have equal channels and plain blocks of 8 by 8, in fours, and sound is whole numbers: every
sum is exact, so that expectations need none of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgefleet_agent.ports import ModelSpec, StoredFile
from edgefleet_contract import bundle as b
from edgefleet_contract.graph import MODEL, Node, Program
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle
from tests.agent.models import linear, pixels, raw

IMAGE = b.TensorSpec("image", "uint8", (-1, -1, -1, 3))
SOUND = b.TensorSpec("sound", "float32", (-1, 64))
LABEL = b.TensorSpec("label", "string", (-1, 3))
SCORE = b.TensorSpec("score", "float32", (-1, 3))
SCORES = b.TensorSpec("scores", "float32", (-1, 10))
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "acht", "neuf été")
KEY = PrivateKey.generate_p256()


@dataclass(frozen=True)
class Made:
    """A program, its files, and golden vectors by tensor."""

    nodes: Sequence[Node]
    inputs: Mapping[b.TensorSpec, np.ndarray]
    outputs: Mapping[b.TensorSpec, np.ndarray]
    files: Mapping[str, bytes]
    format: b.Format = b.Format.ONNX
    engine: str = "onnxruntime"
    more: dict[str, object] = field(default_factory=dict)


def write_program(
    root: Path, made: Made, *, slot: str = "digits", version: int = 1, key: PrivateKey = KEY
) -> Path:
    """A signed bundle directory."""
    folder = root / f"{slot}-{version}"
    (folder / "v").mkdir(parents=True)
    for path, content in made.files.items():
        (folder / path).write_bytes(content)
    arrays = {f"input.{i}": array for i, array in enumerate(made.inputs.values())}
    arrays |= {f"output.{i}": array for i, array in enumerate(made.outputs.values())}
    np.savez(folder / "v" / "golden.npz", **arrays)
    models = [node.file for node in made.nodes if node.op == MODEL]
    fields: dict[str, object] = {
        "name": "v",
        "format": made.format,
        "precision": "float32",
        "model": models[0],
        "golden": "v/golden.npz",
        "max_abs_err_e6": 10,
        "inputs": tuple(made.inputs),
        "outputs": tuple(made.outputs),
        "runtimes": {made.engine: "0"},
        "program": Program(tuple(made.nodes)),
    }
    variant = b.Variant(**{**fields, **made.more})  # type: ignore[arg-type] # as above
    roles = {"v/golden.npz": b.Role.GOLDEN}
    for path in made.files:
        roles[path] = b.Role.MODEL if path in models else b.Role.LABELS
    files = tuple(b.describe_file(folder, path, roles[path]) for path in sorted(roles))
    document = b.render_manifest(b.Manifest(slot, version, 1, "0.1.0", (variant,), files))
    (folder / b.MANIFEST).write_bytes(document)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(document, key))
    return folder


def spec_from(folder: Path) -> ModelSpec:
    """The spec of the one variant of a bundle directory, its files where they lie."""
    document = (folder / b.MANIFEST).read_bytes()
    manifest = b.parse_manifest(document)
    (variant,) = manifest.variants
    return ModelSpec(
        slot=manifest.model,
        model=manifest.model,
        version=manifest.version,
        bundle_sha256=b.sha256(document),
        variant=variant,
        engine=next(iter(variant.runtimes)),
        files={
            file.path: StoredFile(str(folder / file.path), file.sha256)
            for file in manifest.files_for(variant)
        },
    )


def labels_file(names: Sequence[str] = NAMES) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def image_of(rows: np.ndarray, *, times: int = 2) -> np.ndarray:
    """Pictures [N, 8 times, 8 times, 3] whose blocks are four times the pixels [N, 64]."""
    grey = (rows.reshape(-1, 8, 8) * 4).astype(np.uint8)
    return grey.repeat(times, 1).repeat(times, 2)[..., None].repeat(3, -1)


def seen(rows: np.ndarray) -> np.ndarray:
    """What the picture's model is given: (4 pixels - 8) / 4."""
    return rows - np.float32(2)


def best(scores: np.ndarray, names: Sequence[str], k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The labels and scores of the largest, largest first."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    named = np.array(names)[order]
    return named, np.take_along_axis(scores, order, 1).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


SEE = (
    Node("grey", ("image",), ("grey",)),
    Node("resize", ("grey",), ("small",), settings={"height": 8, "width": 8, "method": "area"}),
    Node("normalise", ("small",), ("scaled",), settings={"mean": ["8"], "std": ["4"]}),
    Node("reshape", ("scaled",), ("pixels",), settings={"shape": [64]}),
)
"""A picture of any size to the 64 numbers that the linear model takes."""


def picture_program(engine: str = "onnxruntime", *, names: Sequence[str] = NAMES) -> Made:
    """A picture of any size in, the three best labels out."""
    kind = b.Format.ONNX if engine == "onnxruntime" else b.Format.TFLITE
    model = f"v/linear1.{kind}"
    nodes = (
        *SEE,
        Node(MODEL, ("pixels",), ("logits",), model),
        Node("scale", ("logits",), ("mild",), settings={"factor": "1/16"}),
        Node("softmax", ("mild",), ("chances",)),
        Node("top_k", ("chances",), ("label", "score"), "labels.txt", {"k": 3}),
    )
    rows = pixels(3)
    label, score = best(softmax(linear(seen(rows)) / 16), names)
    return Made(
        nodes,
        {IMAGE: image_of(rows)},
        {LABEL: label, SCORE: score},
        {model: raw(f"linear1.{kind}"), "labels.txt": labels_file(names)},
        kind,
        engine,
    )


def pair_program(image: int, sound: int, names: Sequence[str]) -> Made:
    """A picture and sound in; two models' scores, joined by a weighted mean; labels out.

    `image` and `sound` are which of the two linear models sees and which one hears.
    """
    nodes = (
        *SEE,
        Node(MODEL, ("pixels",), ("seen",), "v/image.onnx"),
        Node("frames", ("sound",), ("frames",), settings={"length": 8, "hop": 8}),
        Node("reshape", ("frames",), ("row",), settings={"shape": [64]}),
        Node(MODEL, ("row",), ("heard",), "v/sound.onnx"),
        Node("weighted_mean", ("seen", "heard"), ("scores",), settings={"weights": ["1", "3"]}),
        Node("top_k", ("scores",), ("label", "score"), "labels.txt", {"k": 3}),
    )
    rows, heard = pixels(2), pixels(2)[:, ::-1].copy()
    scores = (linear(seen(rows), image) + 3 * linear(heard, sound)) / 4
    label, score = best(scores, names)
    return Made(
        nodes,
        {IMAGE: image_of(rows), SOUND: heard},
        {LABEL: label, SCORE: score, SCORES: scores},
        {
            "v/image.onnx": raw(f"linear{image}.onnx"),
            "v/sound.onnx": raw(f"linear{sound}.onnx"),
            "labels.txt": labels_file(names),
        },
    )
