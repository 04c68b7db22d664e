"""Passes by name: off by a word, refused where they cannot be, and the same answers to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgefleet_agent.ports import ModelSpec, StoredFile
from edgefleet_agent.runtime.engine import CannotLoad
from edgefleet_agent.runtime.loading import job_for, map_weights
from edgefleet_agent.runtime.onnx_engine import OnnxSession
from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import OperatorError, PeerError
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_converter.passes import finish_onnx
from edgefleet_converter.pipeline import Built
from edgefleet_converter.recipe import parse_recipe
from edgefleet_converter.verifying import verify
from tests.converter.conftest import CREATED, Digits, build
from tests.converter.trials import spec_of, tried

NAME = "model.weights"
DATA = '[data]\ncalibration = "c"\nheld_out = "h"\n'


@pytest.fixture
def split(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a float model, whole and split."""
    monkeypatch.chdir(tmp_path)
    whole = (built.path / "onnx-float32" / "model.onnx").read_bytes()
    Path("model.onnx").write_bytes(whole)
    says = finish_onnx.split(location=NAME)
    assert says["bytes"] == Path("weights").stat().st_size
    return tmp_path


def answers(raw: bytes, x: np.ndarray, **more: object) -> np.ndarray:
    session = OnnxSession(raw, threads=1, **more)  # type: ignore[arg-type]
    return session.run({session.inputs[0].name: x})[session.outputs[0].name]


def test_a_split_model_answers_the_same_from_weights_in_place(split: Path, digits: Digits) -> None:
    x = np.load(digits.folder / "held_out.npz")["x"].astype(np.float32)
    whole, parts = (split / "model.onnx").read_bytes(), (split / "split.onnx").read_bytes()
    weights = {NAME: (split / "weights").read_bytes()}
    assert len(parts) < len(whole) / 4
    assert np.array_equal(answers(whole, x), answers(parts, x, weights=weights))


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("location", "/etc/passwd"),
        ("location", "other"),
        ("offset", "999999999"),
        ("offset", "-64"),
        ("length", "8"),
        ("length", "x"),
    ],
)
def test_weights_that_are_not_where_they_say_are_refused(
    split: Path, word: str, value: str
) -> None:
    model = onnx.load(split / "split.onnx", load_external_data=False)
    tensor = next(one for one in model.graph.initializer if one.external_data)
    next(entry for entry in tensor.external_data if entry.key == word).value = value
    weights = {NAME: (split / "weights").read_bytes()}
    with pytest.raises(CannotLoad, match=tensor.name):
        OnnxSession(model.SerializeToString(), threads=1, weights=weights)


def test_mapped_weights_are_held_against_what_was_signed(built: Built, split: Path) -> None:
    spec: ModelSpec = spec_of(built.path, built.manifest, "onnx-float32")
    path = split / "weights"
    place = f"onnx-float32/{NAME}"
    right = StoredFile(str(path), sha256(path.read_bytes()))
    job = job_for(replace(spec, files={**spec.files, place: right}), threads=1)
    assert bytes(map_weights(job)[NAME]) == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(PeerError, match="hashes to"):
        map_weights(job)


def test_a_model_without_large_tensors_has_nothing_to_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: Built
) -> None:
    monkeypatch.chdir(tmp_path)
    model = onnx.load(built.path / "onnx-float32" / "model.onnx")
    for tensor in model.graph.initializer:
        tensor.dims[:] = [1]
        tensor.raw_data = bytes(4)
    onnx.save(model, "model.onnx")
    with pytest.raises(OperatorError, match="no weights"):
        finish_onnx.split(location=NAME)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[optimize]\noffline = "rpi4"', "one of arm64"),
        ('[optimize]\noffline = "arm64"', "no target is an ONNX file"),
        ("[optimize]\nmapped_weights = true", "no target is an ONNX"),
        (
            '[hardware]\nclasses = ["rpi4"]\n[optimize]\noffline = "x86-64"',
            "does not run on rpi4",
        ),
        ("[drift]\nbins = 1", "2 to 64"),
        ("[drift]\nleast_examples = 4", "5 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(text: str, says: str) -> None:
    kind = "tflite" if "no target" in says else "onnx"
    targets = (f'targets=["{kind}-int8"]',)
    with pytest.raises(OperatorError, match=says):
        parse_recipe(f"{text}\n{DATA}", folder=Path(), overrides=targets)


def test_a_graph_for_another_processor_is_refused(
    digits: Digits, key: PrivateKey, tmp_path: Path
) -> None:
    text = 'targets = ["onnx-float32"]\n[data]\nheld_out = "held_out.npz"\n'
    recipe = digits.recipe('optimize.offline="armhf"', "measure.enabled=false", text=text)
    with pytest.raises(OperatorError, match="cannot be made on"):
        build(digits.model, recipe, out=tmp_path, model="d", version=1, key=key, created=CREATED)


def test_both_passes_make_a_bundle_that_the_desk_and_a_device_take(
    digits: Digits, key: PrivateKey, ring: KeyRing, tmp_path: Path
) -> None:
    from edgefleet_converter.bench import hardware_here

    text = 'targets = ["onnx-float32"]\n[data]\nheld_out = "held_out.npz"\n'
    recipe = digits.recipe(
        f'optimize.offline="{hardware_here()}"',
        "optimize.mapped_weights=true",
        "measure.enabled=false",
        text=text,
    )
    made = build(digits.model, recipe, out=tmp_path, model="d", version=1, key=key, created=CREATED)
    (variant,) = made.manifest.variants
    assert variant.optimized_for == hardware_here()
    assert variant.hw == (hardware_here(),)
    assert [one.name for one in made.report.variants[0].passes] == ["offline", "mapped_weights"]
    assert f"onnx-float32/{NAME}" in {file.path for file in made.manifest.files_for(variant)}
    assert verify(made.path, ring).problems == ()
    tried(made.path, made.manifest, "onnx-float32")
