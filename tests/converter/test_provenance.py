from __future__ import annotations

import json
from dataclasses import replace

from edgefleet_contract.bundle import sha256
from edgefleet_contract.cards import PROVENANCE, differing, parse_provenance
from edgefleet_converter.pipeline import Built
from edgefleet_converter.provenance import render_provenance
from tests.converter.conftest import Digits


def test_the_origin_names_what_went_in_by_its_digest(built: Built, digits: Digits) -> None:
    origin = parse_provenance((built.path / PROVENANCE).read_bytes())
    assert {one.name: one.sha256 for one in origin.materials} == {
        "source": sha256(digits.model.read_bytes()),
        "calibration": sha256((digits.folder / "calibration.npy").read_bytes()),
        "held-out": sha256((digits.folder / "held_out.npz").read_bytes()),
    }
    assert origin.source is not None
    assert origin.source.sha256 == built.report.source.sha256


def test_its_subjects_are_the_files_that_a_device_uses(built: Built) -> None:
    origin = parse_provenance((built.path / PROVENANCE).read_bytes())
    assert {variant.model for variant in built.manifest.variants} <= {f.path for f in origin.files}
    assert differing(origin.files, built.manifest) == ()
    first, second, *rest = built.manifest.files
    other = replace(second, sha256=sha256(b"other"))
    changed = replace(built.manifest, files=(first, other, *rest))
    assert differing(origin.files, changed) == (second.path,)


def test_the_whole_recipe_is_told_and_what_else_was_asked(built: Built) -> None:
    origin = parse_provenance((built.path / PROVENANCE).read_bytes())
    told = origin.parameters
    assert told["recipe.measure.runs"] == "50"
    assert told["recipe.budget.max_accuracy_drop"] == "0.02", "defaults, too"
    assert (told["model"], told["version"], told["source"]) == ("digits", "1", "digits.skops")
    assert (told["trust_pickle"], told["created"]) == ("false", "1700000000")
    assert origin.started == "2023-11-14T22:13:20Z"
    assert origin.versions == built.report.tools


def test_no_folder_of_this_machine_is_told(built: Built, digits: Digits) -> None:
    recipe = digits.recipe(f"data.calibration={digits.folder}/calibration.npy")
    raw = render_provenance(
        built.manifest, built.report, recipe, source=str(digits.model), trust_pickle=False
    )
    assert str(digits.folder).encode() not in raw
    assert parse_provenance(raw).parameters["recipe.data.calibration"] == "calibration.npy"
    assert str(digits.folder) not in (built.path / PROVENANCE).read_text()


def test_it_is_a_statement_of_in_toto_with_the_predicate_of_slsa(built: Built) -> None:
    """The fields that https://slsa.dev/spec/v1.0/provenance requires, by hand."""
    statement = json.loads((built.path / PROVENANCE).read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert all(set(one) == {"name", "digest"} for one in statement["subject"])
    definition = statement["predicate"]["buildDefinition"]
    assert set(definition) == {"buildType", "externalParameters", "resolvedDependencies"}
    details = statement["predicate"]["runDetails"]
    assert ":" in definition["buildType"]
    assert ":" in details["builder"]["id"]
    assert set(details) == {"builder", "metadata", "byproducts"}
