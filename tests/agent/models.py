"""Small real models as the store would hold them: files, digests, golden vectors that are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefleet_agent.ports import ModelSpec, StoredFile
from edgefleet_contract.bundle import Digest, Format, Limits, TensorSpec, Variant, sha256

HERE = Path(__file__).parent.parent / "vectors" / "models"
WEIGHTS = (np.arange(640).reshape(64, 10) % 7 - 3).astype(np.float32)  # as models/make.py has them

X = TensorSpec("x", "float32", (-1, 64))
Y = TensorSpec("y", "float32", (-1, 10))
N = TensorSpec("n", "int64", (-1, 1))
ONE = TensorSpec("y", "float32", (-1, 1))


def pixels(rows: int) -> np.ndarray:
    """Whole numbers from 0 to 15, as the digits have them: every sum is exact."""
    return (np.arange(rows * 64).reshape(rows, 64) * 7 % 16).astype(np.float32)


def linear(x: np.ndarray, version: int = 1) -> np.ndarray:
    """What linear<version> answers."""
    return x @ WEIGHTS + np.float32(version)


def raw(name: str) -> bytes:
    """A model file's bytes."""
    return (HERE / name).read_bytes()


def make_spec(
    folder: Path,
    file: str,
    inputs: Mapping[TensorSpec, np.ndarray],
    outputs: Mapping[TensorSpec, np.ndarray],
    *,
    slot: str = "digits",
    version: int = 1,
    engine: str = "",
    max_abs_err_e6: int = 0,
    limits: Limits | None = None,
    content: bytes = b"",
) -> ModelSpec:
    """A spec of a model file below `folder`, with these golden vectors; `content`: of the file."""
    folder = folder / f"{slot}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    model, golden = folder / file, folder / "golden.npz"
    model.write_bytes(content or raw(file))
    arrays = {f"input.{i}": array for i, array in enumerate(inputs.values())}
    arrays |= {f"output.{i}": array for i, array in enumerate(outputs.values())}
    np.savez(golden, **arrays)
    kind = Format(file.rpartition(".")[2])
    engine = engine or ("onnxruntime" if kind is Format.ONNX else "litert")
    variant = Variant(
        name=f"{kind}-test",
        format=kind,
        precision="fp32",
        model=f"{kind}/{file}",
        golden=f"{kind}/golden.npz",
        max_abs_err_e6=max_abs_err_e6,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        runtimes={engine: "0"},
    )
    return ModelSpec(
        slot=slot,
        model=slot,
        version=version,
        bundle_sha256=Digest(f"{version:064x}"),
        variant=variant,
        engine=engine,
        files={variant.model: stored(model), variant.golden: stored(golden)},
        limits=limits,
    )


def stored(path: Path) -> StoredFile:
    """A file as the store would hold it: in the clear, its digest right."""
    return StoredFile(str(path), sha256(path.read_bytes()))


def model_path(spec: ModelSpec) -> Path:
    """Where the (first) model of a spec lies."""
    return Path(spec.files[spec.variant.model].path)


def golden_path(spec: ModelSpec) -> Path:
    """Where the golden vectors of a spec lie."""
    return Path(spec.files[spec.variant.golden].path)


def with_file(spec: ModelSpec, path: str, file: StoredFile) -> ModelSpec:
    """The spec with another file at a path of the bundle."""
    return replace(spec, files=spec.files | {path: file})


def with_model(spec: ModelSpec, **changes: object) -> ModelSpec:
    """The spec with another `path`, `sha256` or `seal` of its (first) model."""
    path = spec.variant.model
    return with_file(spec, path, replace(spec.files[path], **changes))


def with_labels(spec: ModelSpec, place: Path) -> ModelSpec:
    """The spec with a labels file: one that may not be there."""
    file = stored(place) if place.exists() else StoredFile(str(place), Digest("0" * 64))
    return replace(with_file(spec, "labels.txt", file), labels="labels.txt")


def linear_spec(folder: Path, version: int = 1, *, slot: str = "digits") -> ModelSpec:
    """The linear ONNX model: x = 0 answers its version, 1 or 2 (odd or even)."""
    which = 1 + (version + 1) % 2
    x = pixels(3)
    return make_spec(
        folder,
        f"linear{which}.onnx",
        {X: x},
        {Y: linear(x, which)},
        slot=slot,
        version=version,
    )


def rival_spec(folder: Path, file: str, version: int = 2) -> ModelSpec:
    """`opposite.onnx` or `thorough.onnx`, warmed up with zeros: both answer 1 to them."""
    x = np.zeros((1, 64), np.float32)
    return make_spec(folder, file, {X: x}, {Y: linear(x)}, version=version)


def tflite_spec(folder: Path, *, slot: str = "digits") -> ModelSpec:
    """The linear model in TFLite."""
    x = pixels(3)
    return make_spec(folder, "linear1.tflite", {X: x}, {Y: linear(x)}, slot=slot)


def asked_spec(
    folder: Path,
    file: str,
    asked: int,
    *,
    slot: str = "busy",
    version: int = 1,
    limits: Limits | None = None,
) -> ModelSpec:
    """`busy.onnx` (products of matrices) or `greedy.onnx` (MiB), as its golden asks."""
    n = np.full((1, 1), asked, np.int64)
    return make_spec(
        folder,
        file,
        {N: n},
        {ONE: n.astype(np.float32)},
        slot=slot,
        version=version,
        limits=limits,
    )


def with_golden(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> ModelSpec:
    """The spec with other golden vectors (written beside, as files of the store never change)."""
    path = golden_path(spec).with_name("other.npz")
    np.savez(path, **arrays)
    return with_file(spec, spec.variant.golden, stored(path))
