"""Sealed rollouts with a real control room and real devices: what lies where, and who can open."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import requests
from onnx import TensorProto, helper, numpy_helper

from edgefleet_agent import identity
from edgefleet_agent.adapters.journal import Journal
from edgefleet_contract import bundle as b
from edgefleet_contract import codec
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_contract.orders import Target
from edgefleet_contract.sealed import open_dek
from edgefleet_contract.sealed_index import parse_index
from tests.agent.models import X, Y
from tests.agent.sealing import plain_in
from tests.fleet.device import new_key, request_of
from tests.system.site import Site, open_site
from tests.system.test_trust import forge

pytestmark = pytest.mark.system

HIDDEN = 512
CHANCE = np.random.default_rng()


@dataclass(frozen=True)
class Made:
    """A bundle of a model that nobody has seen before, and what it answers."""

    folder: Path
    model: bytes
    golden: bytes
    x: np.ndarray
    y: np.ndarray


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as opened:
        opened.enrol("pi-1")
        opened.start_agent("pi-1")
        yield opened


def make(site: Site, version: int) -> Made:
    """Two layers of whole numbers, so that every sum is exact; 150 kB, three chunks."""
    left = CHANCE.integers(-3, 4, (64, HIDDEN)).astype(np.float32)
    right = CHANCE.integers(-3, 4, (HIDDEN, 10)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "left"], ["h"]),
            helper.make_node("MatMul", ["h", "right"], ["y"]),
        ],
        "two-layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(left, "left"), numpy_helper.from_array(right, "right")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = made.SerializeToString()
    onnx.checker.check_model(made)
    folder = site.root / "bundles" / f"digits-{version}"
    (folder / "onnx").mkdir(parents=True)
    x = CHANCE.integers(0, 16, (32, 64)).astype(np.float32)
    y = x @ left @ right
    np.savez(folder / "onnx" / "golden.npz", **{"input.0": x, "output.0": y})
    (folder / "onnx" / "model.onnx").write_bytes(model)
    (folder / "labels.txt").write_text("".join(f"{CHANCE.bytes(40).hex()}\n" for _ in range(10)))
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
    files = tuple(
        b.describe_file(folder, path, role)
        for path, role in (
            ("labels.txt", b.Role.LABELS),
            ("onnx/golden.npz", b.Role.GOLDEN),
            ("onnx/model.onnx", b.Role.MODEL),
        )
    )
    manifest = b.Manifest("digits", version, 1, "0.1.0", (variant,), files, "labels.txt")
    document = b.render_manifest(manifest)
    (folder / b.MANIFEST).write_bytes(document)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(document, site.publisher))
    return Made(folder, model, (folder / "onnx" / "golden.npz").read_bytes(), x, y)


def deploy(site: Site, made: Made, *flags: str) -> None:
    rollout = site.push(made.folder, "--sealed", *flags)
    site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed")


def answers(site: Site, device: str, made: Made) -> bool:
    """Whether a device gives exactly what the model gives."""
    body = json.dumps({"instances": made.x.tolist()})
    url = f"http://127.0.0.1:{site.ports[device]}/v1/models/digits:predict"
    answer = requests.post(url, data=body, timeout=30)
    return answer.status_code == 200 and bool(
        np.array_equal(np.array(answer.json()["predictions"], np.float32), made.y)
    )


def target_on(state: Path) -> Target:
    """What a device's journal says that it runs; the agent may be running."""
    copy = state.parent / f"copy-of-{state.name}"
    copy.mkdir(exist_ok=True)
    for name in ("journal.a", "journal.b"):
        if (state / name).exists():
            shutil.copy(state / name, copy)
    return Journal(copy).load().slots["digits"].target


def elsewhere(site: Site, made: Made, since: float) -> list[str]:
    """Files outside of the desk and the control room that were written since, with plain bytes."""
    found = []
    pieces = [raw[at : at + 512] for raw in (made.model, made.golden) for at in cuts(raw)]
    for top in (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")):
        listing = subprocess.run(
            ["find", top, "-xdev", "-type", "f", "-newermt", f"@{since}", "-size", "-64M"],
            capture_output=True,
            text=True,
            check=False,
        )
        for name in listing.stdout.splitlines():
            path = Path(name)
            if path.is_relative_to(site.root):
                continue
            try:
                held = path.read_bytes()
            except OSError:
                continue  # gone since
            found += [name] if any(piece in held for piece in pieces) else []
    return found


def cuts(raw: bytes) -> range:
    return range(0, len(raw) - 511, 512)


def test_a_sealed_model_serves_the_same_answers_and_never_lies_in_the_clear(site: Site) -> None:
    began = time.time() - 1
    made = make(site, 1)
    state = site.root / "pi-1"
    deploy(site, made)
    assert answers(site, "pi-1", made)

    # nothing of it lies on the device, nor anywhere that a device writes
    assert plain_in(site.root / "bundles", made.model, made.golden)  # it can be found
    assert plain_in(state, made.model, made.golden) == []
    assert elsewhere(site, made, began) == []
    assert made.model[:512] not in site.log("pi-1").encode()

    # what came over HTTP was sealed, and the plain files are not to be had
    target = target_on(state)
    assert target.sealed is not None
    index = parse_index(site.read(f"/blobs/{target.sealed.index_sha256}").content)
    stored = {path.name for path in (state / "store" / "blobs").iterdir()}
    for file in index.files:
        came = site.read(f"/blobs/{file.sha256}").content
        assert file.sha256 in stored
        assert not any(came[at : at + 512] in made.model for at in cuts(came))
    manifest = b.parse_manifest((made.folder / b.MANIFEST).read_bytes())
    for plain in manifest.files:
        assert site.read(f"/blobs/{plain.sha256}").status_code == 404
        assert plain.sha256 not in stored
    key = identity.seal_key(state)
    names = {"fleet": "demo", "device": "pi-1", "bundle": target.bundle_sha256}
    dek = open_dek(target.sealed.sealed_dek, key, **names)  # type: ignore[arg-type] # names and a digest
    for text in (site.log("pi-1"), site.log("fleet")):
        assert dek.raw.hex() not in text
        assert target.sealed.dek not in text

    # a start without a fleet opens it from the journal, as does the way back
    site.kill("fleet")
    site.kill("pi-1")
    site.start_agent("pi-1")
    site.wait("the same answers", lambda: site.version("pi-1") == 1)
    assert answers(site, "pi-1", made)
    assert plain_in(state, made.model, made.golden) == []


def test_a_power_cut_in_the_middle_of_a_sealed_install_is_survived(site: Site) -> None:
    for version, phase in enumerate(("downloading", "selftest", "activating", "probation"), 1):
        made = make(site, version)
        rollout = site.push(made.folder, "--sealed", "--probation", "1")
        site.wait(phase, lambda word=phase: f"-> {word}" in site.log("pi-1").rpartition("@@")[2])
        site.kill("pi-1")
        with (site.root / "pi-1.log").open("a") as log:
            log.write("@@")  # what comes after is of the next life
        site.start_agent("pi-1")
        site.wait("the end", lambda ended=rollout: site.rollout_state(ended) == "completed")
        assert answers(site, "pi-1", made)
        assert plain_in(site.root / "pi-1", made.model, made.golden) == []


def test_a_revoked_sealed_release_gives_way_to_the_sealed_one_before_it(site: Site) -> None:
    one, two = make(site, 1), make(site, 2)
    deploy(site, one)
    deploy(site, two)
    assert answers(site, "pi-1", two)
    site.fleet("keys", "revoke", "bundle", "digits-2", "--key", site.key)
    site.wait("the version before", lambda: site.version("pi-1") == 1, seconds=30)
    assert answers(site, "pi-1", one)


def test_neither_a_copied_card_nor_another_devices_order_opens_anything(site: Site) -> None:
    made = make(site, 1)
    deploy(site, made)
    other = site.enrol("pi-2")

    # the order of pi-1, by whoever has the director's key, on pi-2
    director = PrivateKey.load(site.data / "keys" / "director.pem")
    site.start_agent("pi-2")
    site.wait("its own order", lambda: site.version("pi-2") == 1)
    fresh = make(site, 2)
    deploy(site, fresh, "--to", "id=pi-1")
    target = target_on(site.root / "pi-1")
    forge(site, director, seq=1_000, device="pi-2", target=target)
    site.wait("the refusal", lambda: "unsealing_failed" in site.log("pi-2"))
    assert site.version("pi-2") == 1
    assert answers(site, "pi-2", made)
    device = json.loads(site.run("edge-agent", "status", "--state", other, "--json"))
    assert device["quarantined"] == []

    # the card of pi-1, all but its key
    site.stop("pi-1")
    site.stop("pi-2")
    shutil.rmtree(other / "store")
    shutil.copytree(site.root / "pi-1" / "store", other / "store")
    for name in ("journal.a", "journal.b"):
        shutil.copy(site.root / "pi-1" / name, other / name)
    shutil.copy(site.root / "pi-1" / "identity" / "enrolment.json", other / "identity")
    site.kill("fleet")
    with (site.root / "pi-2.log").open("a") as log:
        log.write("@@")
    site.start_agent("pi-2")
    site.wait("the agent", lambda: "ready:" in site.log("pi-2").rpartition("@@")[2])
    assert "the sealed key is not for device pi-1" in site.log("pi-2").rpartition("@@")[2]
    assert site.version("pi-2") is None
    assert plain_in(other, made.model, fresh.model) == []


def test_a_device_that_enrols_anew_with_another_seal_key_is_sealed_for_again(site: Site) -> None:
    made = make(site, 1)
    deploy(site, made)
    site.stop("pi-1")
    state = site.root / "pi-1"
    for name in ("seal.key", "enrolment.json"):
        (state / "identity" / name).unlink()
    site.enrol("pi-1")
    site.start_agent("pi-1")
    order = site.get("/devices/pi-1")["desired"]["seq"]
    site.wait("its new order", lambda: site.get("/devices/pi-1")["order_seq"] >= order)
    site.kill("pi-1")
    site.start_agent("pi-1")
    site.wait("the same answers", lambda: site.version("pi-1") == 1)
    assert answers(site, "pi-1", made)


def test_a_device_whose_agent_made_no_key_is_named_and_gets_nothing_bare(site: Site) -> None:
    made = make(site, 1)
    claim = site.fleet("devices", "claim").strip()
    request = codec.encode(request_of(claim, "old", new_key()))
    assert isinstance(request, dict)
    del request["seal_key"]  # as an agent before sealed bundles enrols
    answer = requests.post(
        f"{site.url}/api/v1/enrol", json=request, timeout=10, verify=str(site.ca)
    )
    assert answer.status_code == 200
    rollout = site.push(made.folder, "--sealed", "--max-failures", "5")
    site.wait("pi-1", lambda: site.version("pi-1") == 1)
    view = site.get(f"/rollouts/{rollout}")
    (member,) = [device for device in view["devices"] if device["device"] == "old"]
    assert (member["outcome"], member["reason"]) == ("bad", "unsealing_failed")
    assert "enrol it anew" in member["detail"]
    assert site.get("/devices/old")["desired"] is None
