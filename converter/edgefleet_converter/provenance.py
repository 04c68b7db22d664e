"""`provenance.intoto.json`: what the files were made from, by what, and how [bundle-6.4].

An in-toto Statement v1 with the predicate of SLSA (https://slsa.dev/spec/v1.0/provenance). It says
what the desk did; `model.sig` over the bundle says who stands for it. Paths are told by their last
part and keys not at all. Pure: the same values give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from edgefleet_contract import codec
from edgefleet_contract.bundle import Manifest, Role
from edgefleet_contract.canonical import Json
from edgefleet_contract.cards import PREDICATE_TYPE, STATEMENT_TYPE
from edgefleet_converter.boards.places import kind_of
from edgefleet_converter.join_recipe import JoinRecipe
from edgefleet_converter.recipe import Measure, Recipe
from edgefleet_converter.recipe_steps import AskedStep
from edgefleet_converter.report import DataFile, Report
from edgefleet_converter.sbom import device_files, timestamp

BUILD_TYPE: Final = "urn:edgefleet:build-type:bundle:1"
JOIN_TYPE: Final = "urn:edgefleet:build-type:join:1"
BUILDER: Final = "urn:edgefleet:builder:edge-convert"


def render_provenance(
    manifest: Manifest, report: Report, recipe: Recipe, *, source: str, trust_pickle: bool
) -> bytes:
    """The bytes of `provenance.intoto.json` for a bundle whose files are `manifest.files`.

    Args:
        manifest: its model, version, date and files.
        report: digests of what went in, and the versions of the tools.
        recipe: as it was followed, defaults included.
        source: the name of the file that came in.
        trust_pickle: whether it was said.
    """
    parameters: dict[str, Json] = {
        "source": PurePath(source).name,
        "source_kind": report.source_kind,
        "trust_pickle": trust_pickle,
        "recipe": _recipe(recipe),
    }
    return _render(manifest, report, BUILD_TYPE, parameters, {"source": report.source})


def render_join_provenance(
    manifest: Manifest, report: Report, wish: JoinRecipe, materials: Mapping[str, DataFile]
) -> bytes:
    """The same of a join; `materials` are the models that were joined, by name.

    A bundle's digest is that of its `bundle.json`, which is its identity [bundle-1.4].
    """
    data = replace(wish.data, held_out=PurePath(wish.data.held_out).name)
    nodes = tuple(
        node if node.step is None else replace(node, step=_plain((node.step,))[0])
        for node in wish.nodes
    )
    if data.labels is not None:
        data = replace(data, labels=PurePath(data.labels).name)
    models = {
        name: replace(
            one,
            bundle=PurePath(one.bundle).name,
            onnx=PurePath(one.onnx).name,
            tflite=PurePath(one.tflite).name,
        )
        for name, one in wish.models.items()
    }
    value = codec.encode(replace(wish, data=data, models=models, nodes=nodes))
    assert isinstance(value, dict)
    value = _anywhere(value, wish.measure)
    parameters: dict[str, Json] = {
        "recipe": {name: item for name, item in value.items() if name != "folder"}
    }
    return _render(manifest, report, JOIN_TYPE, parameters, {"graph": report.source, **materials})


def _render(
    manifest: Manifest,
    report: Report,
    build_type: str,
    parameters: dict[str, Json],
    materials: Mapping[str, DataFile],
) -> bytes:
    data = {"calibration": report.calibration, "held-out": report.held_out}
    inputs = {**materials, **{name: file for name, file in data.items() if file is not None}}
    statement: dict[str, Json] = {
        "_type": STATEMENT_TYPE,
        "subject": [_resource(file.path, file.sha256) for file in device_files(manifest)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": build_type,
                "externalParameters": {
                    "model": manifest.model,
                    "version": manifest.version,
                    "created": manifest.created,
                    **parameters,
                },
                "resolvedDependencies": [_input(name, file) for name, file in inputs.items()],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": dict(report.tools)},
                "metadata": {
                    "invocationId": manifest.name,
                    "startedOn": timestamp(manifest.created),
                },
                "byproducts": [
                    _resource(file.path, file.sha256)
                    for file in manifest.files
                    if file.role is Role.REPORT
                ],
            },
        },
    }
    text = json.dumps(statement, indent=2, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode("utf-8")


def _recipe(recipe: Recipe) -> Json:
    """The recipe without the folders of its files: a place on a disk is no parameter."""
    data = recipe.data
    told = replace(
        data,
        calibration=PurePath(data.calibration).name,
        held_out=PurePath(data.held_out).name,
        labels=None if data.labels is None else PurePath(data.labels).name,
    )
    value = codec.encode(
        replace(
            recipe,
            data=told,
            before=_plain(recipe.before),
            after=_plain(recipe.after),
        )
    )
    assert isinstance(value, dict)
    value = _anywhere(value, recipe.measure)
    return {name: item for name, item in value.items() if name != "folder"}


def _anywhere(value: dict[str, Json], wish: Measure) -> dict[str, Json]:
    """A recipe that says by which ways was measured, and not where: addresses of boards are
    nobody's business."""
    measure = codec.encode(replace(wish, devices=(), token_file="", ca=""))
    assert isinstance(measure, dict)
    ways: list[Json] = list(dict.fromkeys(map(kind_of, wish.devices)))
    return {**value, "measure": {**measure, "devices": ways}}


def _plain(steps: tuple[AskedStep, ...]) -> tuple[AskedStep, ...]:
    return tuple(replace(step, file=PurePath(step.file).name) for step in steps)


def _input(name: str, file: DataFile) -> Json:
    told: dict[str, Json] = {"size": file.size}
    if file.examples is not None:
        told["examples"] = file.examples
    return {"name": name, "digest": {"sha256": file.sha256}, "annotations": told}


def _resource(name: str, sha256: str) -> Json:
    return {"name": name, "digest": {"sha256": sha256}}
