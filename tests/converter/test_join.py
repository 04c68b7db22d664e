"""Joins of real models, built from real data, tried and served by the device's own code."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from edgefleet_agent.ports import TrialReport
from edgefleet_contract.bundle import Role, sha256
from edgefleet_contract.cards import parse_provenance
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.drift_reference import parse_reference
from edgefleet_contract.errors import OperatorError, Unverified
from edgefleet_contract.graph import MODEL
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_converter import api
from edgefleet_converter.assembly import Built
from edgefleet_converter.join import join
from edgefleet_converter.join_recipe import load_join
from edgefleet_converter.joined_variants import copy_in
from edgefleet_converter.recipe import Measure, parse_recipe
from edgefleet_processing.drift import count, flat, values
from tests.agent.hosting import running
from tests.converter.conftest import CREATED, Digits, build
from tests.converter.test_processing import NAMES, PICTURES, pictures
from tests.converter.trials import spec_of, tried

FELT = """
targets = ["onnx-float32", "tflite-float32"]
[data]
held_out = "felt.npz"
[measure]
enabled = false
"""

JOIN = """
outputs = ["label", "score"]

[data]
held_out = "both.npz"
labels = "labels.txt"

[models.seen]
bundle = "out/camera-1"

[models.felt]
bundle = "out/felt-1"

[[nodes]]
model = "seen"
inputs = ["image"]
outputs = ["seen"]

[[nodes]]
model = "felt"
inputs = ["strokes"]
outputs = ["felt"]

[[nodes]]
step = "weighted_mean"
inputs = ["seen", "felt"]
outputs = ["both"]
weights = [2, 1]

[[nodes]]
step = "top_k"
inputs = ["both"]
outputs = ["label", "score"]
k = 1

[budget]
min_accuracy = 0.95

[measure]
runs = 20
"""


def felt(pixels: np.ndarray) -> np.ndarray:
    """What a strip of sensors beside the camera reads: ink by row, then by column, [N, 16]."""
    grey = pixels.reshape(-1, 8, 8)
    return np.concatenate([grey.sum(1), grey.sum(2)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def folder(digits: Digits, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two signed bundles, data of both kinds, and the graph that joins them."""
    made = tmp_path_factory.mktemp("join")
    held_out = np.load(digits.folder / "held_out.npz")
    x, y = held_out["x"], held_out["y"]
    np.save(made / "pictures.npy", pictures(np.load(digits.folder / "calibration.npy")[:64]))
    np.savez(made / "held_out_pictures.npz", image=pictures(x), y=y)
    np.savez(made / "felt.npz", x=felt(x[200:]), y=y[200:])
    np.savez(made / "both.npz", strokes=felt(x[200:]), image=pictures(x[200:]), y=y[200:])
    (made / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    model = make_pipeline(
        MinMaxScaler(), MLPClassifier((24,), tol=0.01, max_iter=900, random_state=1)
    )
    model.fit(felt(x[:200]), y[:200])
    skops.io.dump(model, made / "felt.skops")
    camera = PICTURES.partition("[[after]]")[0] + "[measure]\nenabled = false\n"
    for name, source, recipe in (
        ("camera", digits.model, camera),
        ("felt", made / "felt.skops", FELT),
    ):
        build(
            source,
            parse_recipe(recipe, folder=made),
            out=made / "out",
            model=name,
            version=1,
            key=key,
            created=CREATED,
        )
    (made / "both.toml").write_text(JOIN)
    return made


def joined(folder: Path, key: PrivateKey, text: str = JOIN, *, out: str = "out") -> Built:
    path = folder / "graph.toml"
    path.write_text(text)
    return join(
        load_join(path),
        source=path,
        out=folder / out,
        model="both",
        version=1,
        key=key,
        trusted=KeyRing([key.public]),
        created=CREATED,
    )


@pytest.fixture(scope="module")
def both(folder: Path, key: PrivateKey) -> Built:
    return joined(folder, key)


def test_a_join_is_one_signed_bundle_with_a_variant_for_each_format(
    both: Built, ring: KeyRing
) -> None:
    assert verify_directory(both.path, ring).manifest == both.manifest
    assert [variant.name for variant in both.manifest.variants] == ["onnx", "tflite"]
    for variant in both.manifest.variants:
        assert [spec.name for spec in variant.inputs] == ["image", "strokes"]
        assert [spec.name for spec in variant.outputs] == ["label", "score"]
        assert variant.program is not None
        ops = Counter(node.op for node in variant.program.nodes)
        assert ops == Counter(
            {"model": 2, "grey": 1, "resize": 1, "scale": 1, "reshape": 1, "weighted_mean": 1}
            | {"top_k": 1}
        )
        assert variant.limits, "the whole was measured"


def test_the_reference_of_a_join_is_of_what_clients_send_and_get(both: Built, folder: Path) -> None:
    data = np.load(folder / "both.npz")
    for variant, told in zip(both.manifest.variants, both.report.variants, strict=True):
        assert variant.drift is not None
        raw = (both.path / variant.drift).read_bytes()
        assert told.drift_bytes == len(raw)
        reference = parse_reference(raw, what=variant.drift)
        assert reference.examples == len(data["y"])
        assert {one.tensor for one in reference.inputs} == {"image", "strokes"}
        assert {one.tensor for one in reference.outputs} == {"label", "score"}
        (labels,) = (one for one in reference.outputs if one.tensor == "label")
        assert labels.classes == tuple(range(10))  # tensors between the models are nobody's
        for one in reference.inputs:  # the device counts what it was made of as it says
            seen = values(flat(data[one.tensor]), one.kind, one.column, {})
            assert count(one, seen).bins == one.counts


def test_two_senses_are_better_than_one(both: Built, folder: Path) -> None:
    alone = json.loads((folder / "out" / "felt-1" / "report.json").read_text())
    for told in both.report.variants:
        assert told.accuracy is not None
        assert told.accuracy.value > alone["variants"][0]["accuracy"]["value"]


@pytest.mark.parametrize("variant", ["onnx", "tflite"])
def test_a_device_gives_the_golden_answers_of_the_join(both: Built, variant: str) -> None:
    report = tried(both.path, both.manifest, variant)
    assert isinstance(report, TrialReport), report
    assert report.vectors == 16


def test_a_device_serves_labels_for_a_picture_and_a_series(both: Built, folder: Path) -> None:
    data = np.load(folder / "both.npz")
    with running() as here:
        assert here.do(here.host.activate((spec_of(both.path, both.manifest, "onnx"),))) is None
        said = []
        for i in range(24):
            row = {"image": data["image"][i].tolist(), "strokes": data["strokes"][i].tolist()}
            answered = here.predict("both", {"instances": [row]})
            assert answered.status == 200, answered.body
            said.append(answered.json()["predictions"][0]["label"][0])
    right = sum(name == NAMES[y] for name, y in zip(said, data["y"][:24], strict=True))
    assert right >= 23


def test_the_origin_names_the_joined_bundles_by_their_identity(
    both: Built, folder: Path, ring: KeyRing
) -> None:
    origin = parse_provenance((both.path / "provenance.intoto.json").read_bytes())
    named = {one.name: one.sha256 for one in origin.materials}
    for name in ("camera-1", "felt-1"):
        found = verify_directory(folder / "out" / name, ring)
        key = {"camera-1": "seen", "felt-1": "felt"}[name]
        assert named[f"{key}: {name}"] == found.digest
    assert {"graph", "held-out"} <= named.keys()


def test_a_bundle_of_a_stranger_is_not_joined(folder: Path, key: PrivateKey) -> None:
    graph = folder / "both.toml"
    with pytest.raises(Unverified):
        join(
            load_join(graph),
            source=graph,
            out=folder / "strange",
            model="both",
            version=1,
            key=key,
            trusted=KeyRing([PrivateKey.generate_p256().public]),
        )
    assert not (folder / "strange").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("min_accuracy = 0.95", "min_accuracy = 1.0"), "100.00 % is asked for"),
        (('inputs = ["seen", "felt"]', 'inputs = ["seen", "sound"]'), "it has"),
        (('model = "felt"', 'model = "heard"'), "there is no models.heard"),
        (('inputs = ["image"]', 'inputs = ["image", "more"]'), "its node names 2"),
        (('step = "top_k"', 'step = "best"'), "there is no step 'best'"),
        (('outputs = ["label", "score"]\n\n[data]', 'outputs = ["name"]\n\n[data]'), "'name'"),
    ],
)
def test_a_graph_that_cannot_be_is_refused_with_the_place(
    folder: Path, key: PrivateKey, change: tuple[str, str], says: str
) -> None:
    text = JOIN.replace("runs = 20", "enabled = false")
    assert change[0] in text
    with pytest.raises(OperatorError) as caught:
        joined(folder, key, text.replace(*change), out="refused")
    assert says in caught.value.message
    assert not (folder / "refused").exists() or not list((folder / "refused").iterdir())


def test_the_same_join_gives_the_same_bytes(folder: Path, key: PrivateKey) -> None:
    text = JOIN.replace("runs = 20", "enabled = false").replace("bundle", "bundle")
    first, second = (joined(folder, key, text, out=out) for out in ("first", "second"))
    for file in first.manifest.files:
        assert (first.path / file.path).read_bytes() == (second.path / file.path).read_bytes()
    assert {file.role for file in first.manifest.files} >= {Role.LABELS, Role.MODEL, Role.GOLDEN}
    assert all(
        {node.file for node in variant.program.nodes if node.op == MODEL}
        for variant in first.manifest.variants
        if variant.program
    )


FILES = """
formats = ["onnx"]
outputs = ["both"]
[data]
held_out = "raw.npz"
[models.seen]
onnx = "out/camera-1/onnx-int8/model.onnx"
[models.felt]
onnx = "out/felt-1/onnx-float32/model.onnx"
[[nodes]]
model = "seen"
inputs = ["pixels"]
outputs = ["seen"]
[[nodes]]
model = "felt"
inputs = ["strip"]
outputs = ["felt"]
[[nodes]]
step = "weighted_mean"
inputs = ["seen", "felt"]
outputs = ["both"]
[measure]
enabled = false
"""


def test_model_files_are_joined_as_they_are(folder: Path, digits: Digits, key: PrivateKey) -> None:
    held_out = np.load(digits.folder / "held_out.npz")
    x, y = held_out["x"][200:], held_out["y"][200:]
    np.savez(folder / "raw.npz", pixels=x, strip=felt(x), y=y)
    (folder / "files.toml").write_text(FILES)
    made = api.join(
        folder / "files.toml",
        out=folder / "files",
        model="both",
        version=1,
        key=key,
        measure=Measure(runs=10, devices=("here",)),
        cache=False,
    )
    assert [one.way for one in made.report.boards] == ["here"]
    (variant,) = made.manifest.variants
    assert variant.precision == "int8"
    assert variant.max_abs_err_e6 > 1000, "the tolerance is that of the int8 model in it"
    assert (made.path / variant.model).read_bytes() == (
        folder / "out/camera-1/onnx-int8/model.onnx"
    ).read_bytes()
    (told,) = made.report.variants
    assert told.accuracy is not None
    assert told.accuracy.value > 0.95
    assert isinstance(tried(made.path, made.manifest, "onnx"), TrialReport)


def test_a_file_that_changes_after_its_bundle_was_verified_is_not_joined(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"other")
    with pytest.raises(OperatorError, match="has changed since"):
        copy_in(tmp_path / "model", tmp_path / "out" / "model", signed=sha256(b"signed"))
