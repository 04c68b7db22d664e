"""Signed bundles of a linear model, and a publisher to sign them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgefleet_agent.ports import Choice
from edgefleet_contract import bundle as b
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_contract.orders import Target
from tests.agent.models import HERE, X, Y, linear, pixels
from tests.agent.shelf import Shelf
from tests.contract.makers import target_of

PUBLISHER = PrivateKey.generate_p256()


def make_bundle(
    root: Path,
    version: int,
    *,
    model: str = "digits",
    key: PrivateKey = PUBLISHER,
    golden_off: float = 0.0,
    raw: bytes | None = None,
    answers: np.ndarray | None = None,
) -> Path:
    """A signed bundle of the linear model that answers x @ W + version (odd 1, even 2).

    Or of `raw`, which gives these answers to three rows of pixels.
    """
    which = 1 + (version + 1) % 2
    folder = root / f"{model}-{version}"
    (folder / "onnx").mkdir(parents=True)
    file = HERE / f"linear{which}.onnx"
    (folder / "onnx" / "model.onnx").write_bytes(raw if raw is not None else file.read_bytes())
    x = pixels(3)
    expected = linear(x, which) if answers is None else answers
    expected = expected + np.float32(golden_off)
    np.savez(folder / "onnx" / "golden.npz", **{"input.0": x, "output.0": expected})
    variant = b.Variant(
        name="onnx",
        format=b.Format.ONNX,
        precision="float32",
        model="onnx/model.onnx",
        golden="onnx/golden.npz",
        max_abs_err_e6=10,
        inputs=(X,),
        outputs=(Y,),
        runtimes={"onnxruntime": "1.0"},
    )
    files = (
        b.describe_file(folder, "onnx/golden.npz", b.Role.GOLDEN),
        b.describe_file(folder, "onnx/model.onnx", b.Role.MODEL),
    )
    document = b.render_manifest(b.Manifest(model, version, 1, "0.1.0", (variant,), files))
    (folder / b.MANIFEST).write_bytes(document)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(document, key))
    return folder


def first_choice(manifest: b.Manifest) -> Choice:
    (variant, *_) = manifest.variants
    return Choice(variant, *variant.runtimes)


def put(shelf: Shelf, folder: Path) -> Target:
    shelf.put_bundle(folder)
    return target_of(folder)
