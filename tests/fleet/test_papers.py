"""What the API and the page show of papers: good ones, none, and ones that try to be something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet_contract import bundle as b
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_fleet.api import create_app
from edgefleet_fleet.services import Services
from tests.contract.makers import write_bundle
from tests.contract.test_cards import bom, statement
from tests.fleet.stage import TOKEN, push
from tests.fleet.web import Web, serving

AUTH = {"Authorization": f"Bearer {TOKEN}"}
EVIL = '<script>alert("1")</script>'


@pytest.fixture
def http(services: Services) -> Iterator[Web]:
    with serving(create_app(services)) as web:
        web.get(f"/?token={TOKEN}")
        yield web


def with_papers(root: Path, key: PrivateKey, sbom: bytes, provenance: bytes) -> Path:
    """A signed bundle with these papers."""
    folder = write_bundle(root, key)
    manifest = b.parse_manifest((folder / b.MANIFEST).read_bytes())
    roles = {"provenance.intoto.json": b.Role.PROVENANCE, "sbom.cdx.json": b.Role.SBOM}
    (folder / "sbom.cdx.json").write_bytes(sbom)
    (folder / "provenance.intoto.json").write_bytes(provenance)
    papers = (b.describe_file(folder, path, role) for path, role in roles.items())
    files = tuple(sorted((*manifest.files, *papers), key=lambda file: file.path))
    raw = b.render_manifest(
        b.Manifest(
            manifest.model,
            manifest.version,
            manifest.created,
            manifest.agent_min,
            manifest.variants,
            files,
        )
    )
    (folder / b.MANIFEST).write_bytes(raw)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(raw, key))
    return folder


def card(**more: Any) -> bytes:
    found = bom()
    found["components"] = []
    model = found["metadata"]["component"]
    model["modelCard"]["considerations"] = {"useCases": ["reading meters"]}
    return json.dumps(found | more).encode()


def origin() -> bytes:
    found = statement()
    found["subject"] = []
    return json.dumps(found).encode()


def test_a_card_and_its_origin_are_shown(
    services: Services, http: Web, publisher: PrivateKey, tmp_path: Path
) -> None:
    push(services, with_papers(tmp_path, publisher, card(), origin()))
    papers = http.get("/api/v1/bundles/digits-1", headers=AUTH).json()["papers"]
    assert papers["problems"] == []
    assert papers["card"]["licence"] == "MIT AND Ours"
    assert papers["card"]["tools"] == {"trainer": "2"}
    page = http.get("/bundles/digits-1")
    assert page.status_code == 200
    source = papers["provenance"]["source_sha256"]
    shown = ["MIT AND Ours", "reading meters", "trainer 2", publisher.public.id, source or "Where"]
    for text in shown:
        assert text in page.text, text
    assert '<a href="/bundles/' in http.get("/bundles").text


def test_a_bundle_without_papers_is_shown_without(
    services: Services, http: Web, publisher: PrivateKey, tmp_path: Path
) -> None:
    push(services, write_bundle(tmp_path, publisher))
    papers = http.get("/api/v1/bundles/digits-1", headers=AUTH).json()["papers"]
    assert papers == {"card": None, "provenance": None, "problems": []}
    assert "has no model card" in http.get("/bundles/digits-1").text


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b'{"bomFormat": 3}', b"[" * 5000])
def test_papers_that_cannot_be_read_are_said_to_be_so(
    services: Services, http: Web, publisher: PrivateKey, tmp_path: Path, raw: bytes
) -> None:
    push(services, with_papers(tmp_path, publisher, raw, raw))
    papers = http.get("/api/v1/bundles/digits-1", headers=AUTH).json()["papers"]
    assert (papers["card"], papers["provenance"]) == (None, None)
    assert len(papers["problems"]) == 2
    page = http.get("/bundles/digits-1")
    assert page.status_code == 200
    assert "sbom.cdx.json cannot be read" in page.text


def test_what_a_card_says_stays_text(
    services: Services, http: Web, publisher: PrivateKey, tmp_path: Path
) -> None:
    found = bom()
    model = found["metadata"]["component"]
    model["description"] = EVIL
    model["licenses"] = [{"license": {"name": EVIL}}]
    found["metadata"]["tools"]["components"][0]["name"] = EVIL
    push(services, with_papers(tmp_path, publisher, json.dumps(found).encode(), origin()))
    text = http.get("/bundles/digits-1").text
    assert "alert(" in text
    assert "<script>alert" not in text


def test_papers_that_speak_of_other_files_are_said_to_do_so(
    services: Services, http: Web, publisher: PrivateKey, tmp_path: Path
) -> None:
    sbom, provenance = json.dumps(bom()).encode(), json.dumps(statement()).encode()
    push(services, with_papers(tmp_path, publisher, sbom, provenance))
    papers = http.get("/api/v1/bundles/digits-1", headers=AUTH).json()["papers"]
    assert papers["problems"] == [
        "the model card speaks of another m.onnx",
        "the provenance speaks of another m.onnx",
    ]
