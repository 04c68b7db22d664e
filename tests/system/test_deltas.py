"""A real control room and a real device: the second version of a model comes as a delta."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from onnx import TensorProto, helper, numpy_helper

from tests.agent.bundles import make_bundle
from tests.agent.models import pixels
from tests.system.site import Site, open_site

pytestmark = pytest.mark.system

HIDDEN = 680
FROZEN = np.random.default_rng(7)
LEFT = FROZEN.integers(-3, 4, (64, HIDDEN)).astype(np.float32)
MIDDLE = FROZEN.integers(-3, 4, (HIDDEN, HIDDEN)).astype(np.float32)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as opened:
        opened.enrol("pi-1")
        yield opened


def last_layer(version: int) -> np.ndarray:
    return np.random.default_rng(version).integers(-3, 4, (HIDDEN, 10)).astype(np.float32)


def answers_of(version: int, x: np.ndarray) -> np.ndarray:
    """Of whole numbers: every sum is exact."""
    answers: np.ndarray = x @ LEFT @ MIDDLE @ last_layer(version)
    return answers


def make(site: Site, version: int) -> Path:
    """A bundle of 1.9 MB whose versions differ in the last of three layers."""
    layers = {"left": LEFT, "middle": MIDDLE, "right": last_layer(version)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "left"], ["a"]),
            helper.make_node("MatMul", ["a", "middle"], ["b"]),
            helper.make_node("MatMul", ["b", "right"], ["y"]),
        ],
        "three-layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in layers.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return make_bundle(
        site.root / "bundles",
        version,
        key=site.publisher,
        raw=made.SerializeToString(),
        answers=answers_of(version, pixels(3)),
    )


def update(site: Site, version: int, *flags: str) -> dict[str, float]:
    """Roll a version out, hold the answers against it; what the device measured."""
    rollout = site.push(make(site, version), *flags)
    site.wait("the rollout", lambda: site.rollout_state(rollout) == "completed", seconds=90)
    x = np.random.default_rng(version).integers(0, 16, (16, 64)).astype(np.float32)
    answer = requests.post(
        f"http://127.0.0.1:{site.ports['pi-1']}/v1/models/digits:predict",
        data=json.dumps({"instances": x.tolist()}),
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    found = np.array(answer.json()["predictions"], np.float32)
    assert np.array_equal(found, answers_of(version, x))
    told: list[dict[str, Any]] = site.get("/devices/pi-1")["events"]
    ended = (e for e in told if e["phase"] == "committed" and e["rollout"] == rollout)
    measured: dict[str, float] = next(ended)["measurements"]
    return measured


def check(first: dict[str, float], second: dict[str, float], way: str) -> None:
    size = (64 + HIDDEN + 10) * HIDDEN * 4
    assert size < first[f"bytes_{way}"] == first["download_bytes"]
    assert "delta_bytes" not in first
    assert second[f"bytes_{way}"] == second["download_bytes"] < 0.1 * first["download_bytes"]
    assert 0 < second["delta_bytes"] < second["download_bytes"]
    assert second["delta_bytes"] + second["delta_saved_bytes"] == pytest.approx(size, rel=0.01)


def test_an_update_that_is_rolled_out_to_a_running_device_comes_as_a_delta(site: Site) -> None:
    site.start_agent("pi-1")
    check(update(site, 1), update(site, 2), "http")


def test_an_update_comes_as_a_delta_where_only_the_broker_can_be_reached(site: Site) -> None:
    state = site.root / "pi-1"
    site.kill("fleet")
    nowhere = "https://127.0.0.1:1"
    (site.data / "fleet.toml").write_text(f'public_url = "{nowhere}"\n')
    place = state / "identity" / "enrolment.json"
    place.write_text(place.read_text().replace(site.url, nowhere))
    site.start_fleet()
    site.start_agent("pi-1")
    check(update(site, 1), update(site, 2), "mqtt")


def test_a_sealed_rollout_uses_no_delta_in_either_direction(site: Site) -> None:
    site.start_agent("pi-1")
    flags = [(), ("--sealed",), ("--sealed",), ()]
    measured = [update(site, version, *given) for version, given in enumerate(flags, 1)]
    for one in measured:
        assert "delta_bytes" not in one
        assert one["download_bytes"] > 64 * HIDDEN * 4
