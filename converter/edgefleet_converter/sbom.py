"""`sbom.cdx.json`: a CycloneDX 1.6 bill of materials with the model card [bundle-6.1].

Written from what the recipe says of the model (`[card]`) and what was measured; nothing is made up:
a field that nobody filled is absent. Figures are texts, as the format has them. Pure: values in,
bytes out; the same values give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime
from typing import Final

from edgefleet_contract.bundle import BundleFile, Manifest, Role, TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_contract.cards import (
    BOM_FORMAT,
    EXAMPLES_PROPERTY,
    MODEL_TYPE,
    SHA256_PROPERTY,
    SPEC_VERSION,
)
from edgefleet_converter.card import Card
from edgefleet_converter.metrics import Share
from edgefleet_converter.report import DataFile, Report, VariantReport

DEVICE_ROLES: Final = frozenset(
    {Role.MODEL, Role.WEIGHTS, Role.GOLDEN, Role.LABELS, Role.VOCABULARY, Role.DRIFT}
)
"""Of which files the papers speak: those that a device uses."""

_NOT_ON_PYPI: Final = frozenset({"python"})
_CLASSIFICATION: Final = "classification"


def render_sbom(manifest: Manifest, report: Report, card: Card) -> bytes:
    """The bytes of `sbom.cdx.json` for a bundle whose files are `manifest.files`."""
    bom: dict[str, Json] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": BOM_FORMAT,
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "timestamp": timestamp(manifest.created),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [_tool(*tool) for tool in sorted(report.tools.items())]},
            **_filled(authors=[{"name": name} for name in card.authors]),
            "component": _model(manifest, report, card),
        },
        "components": [_file(file) for file in device_files(manifest)],
        "dependencies": [
            {"ref": "model", "dependsOn": [file.path for file in device_files(manifest)]}
        ],
    }
    # One serial number for one content: RFC 9562 version 5 over the digest of everything else.
    digest = hashlib.sha256(_dump(bom)).hexdigest()
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"urn:edgefleet:sbom:sha256:{digest}")
    return _dump({**bom, "serialNumber": serial.urn})


def device_files(manifest: Manifest) -> tuple[BundleFile, ...]:
    """The files of a bundle that a device uses."""
    return tuple(file for file in manifest.files if file.role in DEVICE_ROLES)


def timestamp(created: int) -> str:
    """Seconds since 1970 as RFC 3339, in UTC."""
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def spec_text(spec: TensorSpec) -> str:
    """An input or output as people read it: `input float32[any, 64]`."""
    sizes = ", ".join("any" if size == -1 else str(size) for size in spec.shape)
    return f"{spec.name} {spec.dtype}[{sizes}]"


def _model(manifest: Manifest, report: Report, card: Card) -> Json:
    first = manifest.variants[0]
    classifies = any(one.accuracy or one.agreement for one in report.variants)
    return {
        "type": MODEL_TYPE,
        "bom-ref": "model",
        "name": manifest.model,
        "version": str(manifest.version),
        **_filled(
            description=card.description,
            licenses=[{"expression": card.licence}] if card.licence else [],
        ),
        "modelCard": {
            "modelParameters": {
                **_filled(task=card.task or (_CLASSIFICATION if classifies else "")),
                "datasets": _datasets(report, card),
                "inputs": [{"format": spec_text(spec)} for spec in first.inputs],
                "outputs": [{"format": spec_text(spec)} for spec in first.outputs],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    metric for told in report.variants for metric in _metrics(told)
                ]
            },
            **_filled(
                considerations=_filled(
                    useCases=list(card.intended_use),
                    technicalLimitations=list(card.limitations),
                )
            ),
        },
    }


def _datasets(report: Report, card: Card) -> list[Json]:
    found: list[Json] = []
    if card.training_data:
        found.append({"type": "dataset", "name": "training", "description": card.training_data})
    for name, file, purpose in (
        ("calibration", report.calibration, "what the ranges of 8-bit numbers are taken from"),
        ("held-out", report.held_out, "what the figures are measured on"),
    ):
        if file is None:
            continue
        properties: list[Json] = [_property(SHA256_PROPERTY, file.sha256), *_examples(file)]
        found.append(
            {
                "type": "dataset",
                "name": name,
                "description": purpose,
                "contents": {"properties": properties},
            }
        )
    return found


def _examples(file: DataFile) -> list[Json]:
    return [] if file.examples is None else [_property(EXAMPLES_PROPERTY, str(file.examples))]


def _metrics(told: VariantReport) -> list[Json]:
    """The shares with their 95 % Wilson intervals, and the noise of quantization."""
    found: list[Json] = []
    for kind, share in (
        ("accuracy", told.accuracy),
        ("accuracy of the float model", told.accuracy_float),
        ("agreement with the float model", told.agreement),
    ):
        if share is not None:
            found.append({"type": kind, "slice": told.name, **_share(share)})
    found.append({"type": "SQNR, dB", "slice": told.name, "value": f"{told.sqnr_db:.1f}"})
    return found


def _share(share: Share) -> dict[str, Json]:
    return {
        "value": f"{share.value:.6f}",
        "confidenceInterval": {
            "lowerBound": f"{share.low:.6f}",
            "upperBound": f"{share.high:.6f}",
        },
    }


def _file(file: BundleFile) -> Json:
    return {
        "type": "file",
        "bom-ref": file.path,
        "name": file.path,
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        "properties": [_property("edgefleet:role", file.role.value)],
    }


def _tool(name: str, version: str) -> Json:
    if name in _NOT_ON_PYPI:
        return {"type": "platform", "name": name, "version": version}
    kind = "application" if name == "edgefleet" else "library"
    return {"type": kind, "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}


def _property(name: str, value: str) -> Json:
    return {"name": name, "value": value}


def _filled(**fields: Json) -> dict[str, Json]:
    """The fields that somebody filled."""
    return {name: value for name, value in fields.items() if value}


def _dump(bom: dict[str, Json]) -> bytes:
    return (json.dumps(bom, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")
