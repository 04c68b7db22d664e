from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgefleet_contract.bundle import Role
from edgefleet_contract.cards import SBOM, ModelCard, differing, parse_card
from edgefleet_converter.card import Card
from edgefleet_converter.pipeline import Built
from edgefleet_converter.sbom import render_sbom

FULL = Card(
    description='Tells digits apart, even "odd" ones: é.',
    task="image-classification",
    licence="Apache-2.0 OR LicenseRef-Ours",
    authors=("A. Publisher", "B. Trainer"),
    training_data="1,797 images of handwritten digits.",
    intended_use=("Reading meters.",),
    limitations=("One digit at a time.", "Not letters."),
)


def refusals(raw: bytes) -> list[str]:
    """What the schema of CycloneDX 1.6, in its strict form, has against a document."""
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(raw.decode())
    return [] if found is None else [str(found)]


@pytest.fixture(scope="module")
def card(built: Built) -> ModelCard:
    return parse_card((built.path / SBOM).read_bytes())


def test_the_bill_of_materials_keeps_the_schema_of_its_format(built: Built) -> None:
    assert refusals((built.path / SBOM).read_bytes()) == []
    assert refusals(render_sbom(built.manifest, built.report, FULL)) == []
    broken = render_sbom(built.manifest, built.report, FULL).replace(b"useCases", b"uses")
    assert refusals(broken) != [], "the validator refuses what the format does not have"


def test_every_file_that_a_device_uses_is_in_it_with_its_digest(
    built: Built, card: ModelCard
) -> None:
    used = {
        file.path: file.sha256
        for file in built.manifest.files
        if file.role in (Role.MODEL, Role.DRIFT, Role.GOLDEN, Role.LABELS)
    }
    assert {one.path: one.sha256 for one in card.files} == used
    assert len(used) == 13
    assert differing(card.files, built.manifest) == ()


def test_the_card_says_what_was_measured_with_its_interval(built: Built, card: ModelCard) -> None:
    for told in built.report.variants:
        assert told.accuracy is not None
        (metric,) = (m for m in card.metrics if (m.kind, m.variant) == ("accuracy", told.name))
        figures = [float(text) for text in (metric.value, metric.low, metric.high) if text]
        expected = [told.accuracy.value, told.accuracy.low, told.accuracy.high]
        assert figures == pytest.approx(expected, abs=1e-6)
    assert card.task == "classification"
    assert card.tools == built.report.tools
    assert {"edgefleet", "python", "onnxruntime"} <= set(card.tools)


def test_data_is_named_by_its_digest_and_count(built: Built, card: ModelCard) -> None:
    told = {one.name: (one.sha256, one.examples) for one in card.datasets}
    assert told == {
        "calibration": (built.report.calibration.sha256, built.report.calibration.examples),
        "held-out": (built.report.held_out.sha256, built.report.held_out.examples),
    }


def test_what_the_recipe_says_of_the_model_is_read_back(built: Built) -> None:
    card = parse_card(render_sbom(built.manifest, built.report, FULL))
    assert (card.name, card.version, card.created) == ("digits", "1", "2023-11-14T22:13:20Z")
    for name in ("description", "task", "licence", "authors", "intended_use", "limitations"):
        assert getattr(card, name) == getattr(FULL, name)
    assert card.datasets[0].description == FULL.training_data
    assert card.inputs == ("input float32[any, 64]",)


def test_what_nobody_said_is_absent(built: Built) -> None:
    model: dict[str, Any] = json.loads((built.path / SBOM).read_text())["metadata"]["component"]
    assert not {"licenses", "description"} & set(model)
    assert "considerations" not in model["modelCard"]


def test_one_content_has_one_serial_number(built: Built) -> None:
    raw = render_sbom(built.manifest, built.report, FULL)
    assert render_sbom(built.manifest, built.report, FULL) == raw
    serials = {
        parse_card(render_sbom(manifest, built.report, card)).serial
        for manifest, card in (
            (built.manifest, FULL),
            (built.manifest, replace(FULL, task="other")),
            (replace(built.manifest, created=1), FULL),
            (replace(built.manifest, files=built.manifest.files[1:], labels=None), FULL),
        )
    }
    assert len(serials) == 4
    assert all(serial.startswith("urn:uuid:") and serial[23] == "5" for serial in serials)
