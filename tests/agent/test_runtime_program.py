"""Programs through the real host: steps and models as one, in the trial, in service, in a swap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.bundles import Bundles
from edgefleet_agent.client import Client
from edgefleet_agent.client.files import read_feeds
from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_contract import bundle as b
from edgefleet_contract.graph import MODEL, Node
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import Answered, Load, RunningHost, running
from tests.agent.models import linear, pixels, raw, with_model
from tests.agent.programs import (
    IMAGE,
    KEY,
    NAMES,
    SCORE,
    Made,
    best,
    image_of,
    labels_file,
    pair_program,
    picture_program,
    seen,
    softmax,
    spec_from,
    write_program,
)
from tests.agent.sealing import new_seal_key, plain_in, seal_bundle
from tests.agent.shelf import Shelf

ROWS = pixels(9)[4:9]
OTHER = tuple(f"v2 {name}" for name in NAMES)


def tried(spec: ModelSpec) -> TrialReport | Failed:
    return asyncio.run(try_model(spec, timeout_s=60, threads=1, data_mib=1024))


def refused(made: Made, folder: Path) -> Failed:
    outcome = tried(spec_from(write_program(folder, made)))
    assert isinstance(outcome, Failed), outcome
    return outcome


def predictions(answer: Answered) -> tuple[list[list[str]], np.ndarray]:
    assert answer.status == 200, answer.body
    found = answer.json()["predictions"]
    return [row["label"] for row in found], np.array([row["score"] for row in found])


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """A program on each runtime, and two models in one."""
    folder = tmp_path_factory.mktemp("programs")
    specs = [
        spec_from(write_program(folder, made, slot=slot))
        for slot, made in (
            ("onnx", picture_program()),
            ("lite", picture_program("litert")),
            ("pair", pair_program(1, 2, NAMES)),
        )
    ]
    with running() as here:
        assert here.do(here.host.activate(tuple(specs))) is None
        yield here


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_the_golden_vectors_hold_the_whole_program(tmp_path: Path, engine: str) -> None:
    report = tried(spec_from(write_program(tmp_path, picture_program(engine))))
    assert isinstance(report, TrialReport), report
    assert report.vectors == 3
    assert report.max_abs_err < 1e-6


@pytest.mark.parametrize("slot", ["onnx", "lite"])
@pytest.mark.parametrize("times", [1, 3, 5])
def test_a_picture_of_any_size_goes_in_and_labels_come_out(
    here: RunningHost, slot: str, times: int
) -> None:
    image = image_of(ROWS, times=times)
    labels, scores = predictions(here.predict(slot, {"instances": image.tolist()}))
    wanted = best(softmax(linear(seen(ROWS)) / 16), NAMES)
    assert labels == wanted[0].tolist()
    assert np.allclose(scores, wanted[1], atol=1e-6)


def test_the_other_protocol_says_the_same_and_what_is_declared(here: RunningHost) -> None:
    told = here.ask("GET", "/v2/models/onnx").json()
    assert told["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert [output["datatype"] for output in told["outputs"]] == ["BYTES", "FP32"]
    image = image_of(ROWS)
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(image.shape)}
    body = {"inputs": [tensor | {"data": image.ravel().tolist()}]}
    label, score = here.ask("POST", "/v2/models/onnx/infer", body).json()["outputs"]
    labels, scores = predictions(here.predict("onnx", {"instances": image.tolist()}))
    assert label["data"] == [name for row in labels for name in row]
    assert np.allclose(score["data"], scores.ravel())


def test_a_photograph_is_sent_as_it_is(here: RunningHost, tmp_path: Path) -> None:
    """By our own client, which fits images to a model only where the model has a size."""
    image = pytest.importorskip("PIL.Image")
    photo = tmp_path / "photo.png"
    image.fromarray(image_of(ROWS[:1], times=7)[0]).save(photo)
    with Client(f"127.0.0.1:{here.port}") as client:
        feeds = read_feeds(str(photo), client.metadata("lite"), None)
        assert feeds["image"].shape == (1, 56, 56, 3)
        found = client.infer("lite", feeds)
    wanted = best(softmax(linear(seen(ROWS[:1])) / 16), NAMES)
    assert found["label"].tolist() == wanted[0].tolist()
    assert np.allclose(found["score"], wanted[1], atol=1e-6)


def test_two_models_see_and_hear_as_one(here: RunningHost) -> None:
    sound = ROWS[:, ::-1] - np.float32(3)
    body = {"inputs": {"image": image_of(ROWS).tolist(), "sound": sound.tolist()}}
    found = here.predict("pair", body).json()["outputs"]
    scores = (linear(seen(ROWS), 1) + 3 * linear(sound, 2)) / 4
    assert found["scores"] == scores.tolist()
    assert found["label"] == best(scores, NAMES)[0].tolist()


def test_an_input_that_a_step_cannot_work_on_is_the_clients_mistake(here: RunningHost) -> None:
    shape = [1, 1, 40_000, 3]
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape}
    body = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 120_000}}]})
    headers = {"Inference-Header-Content-Length": str(len(body))}
    pid = here.host.worker_pids["onnx"]
    answer = here.ask("POST", "/v2/models/onnx/infer", body.encode() + bytes(120_000), headers)
    assert answer.status == 400
    assert "node 0 (grey) takes sides from 1 to 32768, got" in answer.json()["error"]
    assert here.host.worker_pids["onnx"] == pid


def few_names(k: int = 5) -> Made:
    """A publisher's mistake that its golden vectors do not show: labels for half of the classes."""
    nodes = (
        Node(MODEL, ("x",), ("y",), "v/m.onnx"),
        Node("argmax", ("y",), ("class",)),
        Node("labels", ("class",), ("name",), "labels.txt", {"count": k}),
    )
    rows = np.zeros((1, 64), np.float32)
    rows[0, 0] = 1  # weights -3 -2 -1 0 1 2 3 -3 -2 -1: class 6
    x = b.TensorSpec("x", "float32", (-1, 64))
    return Made(
        nodes,
        {x: -rows},
        {b.TensorSpec("name", "string", (-1,)): np.array(["zero"])},
        {"v/m.onnx": raw("linear1.onnx"), "labels.txt": labels_file(NAMES[:k])},
    )


def test_what_fails_behind_a_model_is_not_the_clients_mistake(tmp_path: Path) -> None:
    with running() as here:
        spec = spec_from(write_program(tmp_path, few_names()))
        assert here.do(here.host.activate((spec,))) is None
        rows = np.zeros((2, 64))
        rows[0, 0], rows[1, 0] = -1, 1
        assert here.predict("digits", {"instances": rows[:1].tolist()}).status == 200
        answer = here.predict("digits", {"instances": rows.tolist()})
        assert answer.status == 500
        assert "node 2 (labels) has 5 labels, got classes 0 to 6" in answer.json()["error"]


# the swap


def test_two_models_are_swapped_as_one_under_load(tmp_path: Path) -> None:
    """Answers are one version's or the other's, to the byte, and none is lost."""
    bodies = {"1": pair_program(1, 1, NAMES), "2": pair_program(2, 2, OTHER)}
    bodies["3"] = bodies["1"]
    specs = {v: spec_from(write_program(tmp_path, m, version=int(v))) for v, m in bodies.items()}
    mixed = [pair_program(1, 2, NAMES), pair_program(2, 1, OTHER), pair_program(1, 1, OTHER)]
    body = json.dumps(
        {"inputs": {"image": image_of(ROWS).tolist(), "sound": ROWS.tolist()}}
    ).encode()
    path = "/v1/models/digits:predict"
    with running() as here:
        alone: dict[str, bytes] = {}
        for version in ("1", "2"):
            assert here.do(here.host.activate((specs[version],))) is None
            answer = here.ask("POST", path, body)
            assert answer.status == 200, answer.body
            alone[version] = answer.body
        alone["3"] = alone["1"]
        for i, made in enumerate(mixed):  # a mixture would show
            spec = spec_from(write_program(tmp_path, made, slot=f"mixed{i}"))
            assert here.do(here.host.activate((spec,))) is None
            assert here.ask("POST", path.replace("digits", f"mixed{i}"), body).body not in (
                alone["1"],
                alone["2"],
            )
            here.do(here.host.deactivate(f"mixed{i}"))
        with Load(here, path, body, clients=3, told=lambda answer: answer.body) as load:
            load.more(20)
            for version in ("3", "2", "1"):
                assert here.do(here.host.activate((specs[version],))) is None
                load.more(20)
        assert load.failures == []
        assert set(load.answers) == set(alone.items())


# refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"op": "teleport"}, "node 1 (teleport): no such step"),
        ({"settings": {"height": 8, "width": 0}}, "node 1 (resize): width is 0"),
        ({"settings": {"height": 8, "width": 8, "how": "area"}}, "node 1 (resize): unknown field"),
        ({"file": "labels.txt"}, "node 1 (resize) takes no file"),
        (
            {"op": "labels", "file": "labels.txt", "settings": {"count": 9}},
            "node 1 (labels): has 10",
        ),
    ],
)
def test_a_step_that_is_not_known_or_not_well_set_is_not_loaded(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    made = picture_program()
    nodes = list(made.nodes)
    nodes[1] = replace(nodes[1], **change)  # type: ignore[arg-type] # fields by name
    failed = refused(replace(made, nodes=nodes), tmp_path)
    assert failed.reason is Reason.LOAD_FAILED
    assert says in failed.detail


def test_a_model_that_takes_other_tensors_is_not_loaded(tmp_path: Path) -> None:
    made = picture_program()
    nodes = [
        replace(node, inputs=("pixels", "scaled")) if node.op == MODEL else node
        for node in made.nodes
    ]
    failed = refused(replace(made, nodes=nodes), tmp_path)
    assert failed.reason is Reason.LOAD_FAILED
    assert "node 4 (model) takes 2 tensors, v/linear1.onnx takes 'x'" in failed.detail


@pytest.mark.parametrize(
    ("drop", "says"),
    [
        ("normalise", "takes 'x' as float32 [-1, 64], the program gives it uint8 [1, 64]"),
        ("reshape", "takes 'x' as float32 [-1, 64], the program gives it float32 [1, 8, 8, 1]"),
    ],
)
def test_a_model_is_given_what_it_takes_or_nothing(tmp_path: Path, drop: str, says: str) -> None:
    made = picture_program()
    nodes, renamed = [], {}
    for node in made.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        if node.op == drop:
            renamed[node.outputs[0]] = node.inputs[0]
        else:
            nodes.append(node)
    failed = refused(replace(made, nodes=nodes), tmp_path)
    assert (failed.reason, says in failed.detail) == (Reason.GOLDEN_MISMATCH, True), failed


def test_an_output_is_what_the_variant_declares_or_nothing_is_answered(tmp_path: Path) -> None:
    made = picture_program()
    outputs = {
        b.TensorSpec("score", "float64", (-1, 3)) if spec is SCORE else spec: array.astype("f8")
        if spec is SCORE
        else array
        for spec, array in made.outputs.items()
    }
    failed = refused(replace(made, outputs=outputs), tmp_path)
    assert failed.reason is Reason.GOLDEN_MISMATCH
    assert (
        "output 'score' is declared as float64 [-1, 3], the program gave float32" in failed.detail
    )


@pytest.mark.parametrize(
    "names",
    [NAMES[:9], (*NAMES, "ten"), (NAMES[1], NAMES[0], *NAMES[2:])],
    ids=["one less", "one more", "exchanged"],
)
def test_the_right_model_with_the_wrong_labels_is_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    made = picture_program()
    files = {**made.files, "labels.txt": labels_file(names)}
    rows = np.eye(10, 64, dtype=np.float32)[2:4] * 15  # the first is a zero
    label, score = best(softmax(linear(seen(rows)) / 16), NAMES, 3)
    inputs = {IMAGE: image_of(rows)}
    outputs = dict(zip(made.outputs, (label, score), strict=True))
    changed = replace(made, files=files, inputs=inputs, outputs=outputs)
    failed = refused(changed, tmp_path)
    assert failed.reason is Reason.GOLDEN_MISMATCH


def test_labels_that_are_not_the_signed_ones_are_refused(tmp_path: Path) -> None:
    folder = write_program(tmp_path, picture_program())
    spec = spec_from(folder)
    (folder / "labels.txt").write_bytes(labels_file((NAMES[1], NAMES[0], *NAMES[2:])))
    failed = tried(spec)
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.DIGEST_MISMATCH
    assert failed.detail.startswith("labels.txt hashes to")
    (folder / "labels.txt").unlink()
    assert tried(spec).reason is Reason.STORAGE_FAILED  # type: ignore[union-attr] # it failed


def test_each_model_of_a_program_is_held_against_its_digest(tmp_path: Path) -> None:
    folder = write_program(tmp_path, pair_program(1, 2, NAMES))
    spec = spec_from(folder)
    (folder / "v" / "sound.onnx").write_bytes(raw("linear1.onnx"))
    failed = tried(spec)
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.DIGEST_MISMATCH
    assert "v/sound.onnx" in failed.detail


# sealed


def test_a_sealed_program_is_fetched_whole_and_opened_in_memory(
    tmp_path: Path, shelf: Shelf
) -> None:
    from edgefleet_agent.adapters.http_chunks import HttpChunks
    from edgefleet_agent.adapters.store import Store
    from edgefleet_agent.transfer.mover import Mover
    from tests.agent.bundles import first_choice

    names = tuple(f"{name} {'x' * 200}" for name in NAMES)
    folder = write_program(tmp_path, pair_program(1, 2, names))
    sealed = seal_bundle(folder)
    shelf.blobs |= sealed.blobs
    pi = tmp_path / "pi"
    key, unseal = new_seal_key(pi)
    store, ring = Store(pi / "store"), KeyRing([KEY.public])
    made = Bundles(
        store=store,
        fetcher=Mover(store, (HttpChunks(),)),
        publishers=lambda: ring,
        choose=first_choice,
        hw="arm64",
        unseal=unseal,
    )
    target = sealed.target(key.public_key())
    spec = made.spec(made.bring(target, (shelf.url,), lambda *_: None).installed)
    assert set(spec.files) == {"labels.txt", "v/golden.npz", "v/image.onnx", "v/sound.onnx"}
    report = tried(spec)
    assert isinstance(report, TrialReport), report
    held = [path.read_bytes() for path in folder.rglob("*.onnx")] + [labels_file(names)]
    assert plain_in(pi, *held) == []
    other = with_model(spec, seal=replace(spec.files["v/image.onnx"].seal, key="00" * 32))  # type: ignore[type-var] # sealed
    assert tried(other).reason is Reason.UNSEALING_FAILED  # type: ignore[union-attr] # it failed
