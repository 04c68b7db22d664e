"""The route table: each path has one meaning, and the description is made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgefleet_agent.runtime.frames import Ask
from edgefleet_agent.serving.door import Inference
from edgefleet_agent.serving.doors import DOORS
from edgefleet_agent.serving.openapi import document

SPEC = (Path(__file__).parents[2] / "docs/spec/api.md").read_text()


@pytest.mark.parametrize("door", DOORS.all, ids=lambda door: f"{door.method} {door.path}")
def test_every_door_is_found_by_its_path_and_by_no_other(door: object) -> None:
    path = door.path.replace("{model}", "a.b-1").replace("{version}", "7").replace("{label}", "x")
    doors, places = DOORS.at(path)
    assert doors[door.method] is door
    assert list(places) == re.findall(r"\{(\w+)\}", door.path)
    assert DOORS.at(path + "/") == DOORS.at(path + ":x") == ({}, {})


def test_every_inference_that_a_worker_knows_has_a_door() -> None:
    asks = {door.to.ask for door in DOORS.all if isinstance(door.to, Inference)}
    assert asks == set(Ask) - {Ask.SHADOW}


def test_the_description_has_every_door() -> None:
    described = document(DOORS.all)
    assert {
        (method.upper(), path) for path, ways in described["paths"].items() for method in ways
    } == {(door.method, door.path) for door in DOORS.all}
    infer = described["paths"]["/v2/models/{model}/infer"]["post"]
    assert list(infer["requestBody"]["content"]) == ["application/json", "application/octet-stream"]
    network = {"401", "403", "429"}
    assert set(infer["responses"]) == network | {
        *("200", "400", "404", "408", "413", "415", "500", "503", "504")
    }
    assert [place["name"] for place in infer["parameters"]] == ["model"]


@pytest.mark.parametrize("path", sorted({door.path for door in DOORS.all}))
def test_the_specification_names_every_path(path: str) -> None:
    said = path.replace("{model}", "{m}")
    short = said.replace("/versions/{version}", "").replace("/labels/{label}", "")
    assert f"{short}`" in SPEC, f"docs/spec/api.md does not name {short}"
