"""A bundle's papers as values to show: `sbom.cdx.json` and `provenance.intoto.json` [bundle-6].

Bytes in, values out: what the desk and the fleet's page show of a model card (CycloneDX 1.6) and of
a bundle's origin (in-toto Statement v1 with SLSA provenance v1). Other producers may have written
them, so unknown fields are passed over; what is read has the type that it must have, and no text
holds characters that would act on a terminal or turn a line around.

The papers are covered by `model.sig` as every file is. Whether a signature was checked is not known
here; `differing` says whether the papers speak of the files beside them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract import paper_formats as formats
from edgefleet_contract.bundle import Digest, Manifest, is_digest
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import Malformed

SBOM: Final = "sbom.cdx.json"
PROVENANCE: Final = "provenance.intoto.json"
BOM_FORMAT: Final = "CycloneDX"
SPEC_VERSION: Final = "1.6"
MODEL_TYPE: Final = "machine-learning-model"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
SHA256_PROPERTY: Final = "edgefleet:sha256"
EXAMPLES_PROPERTY: Final = "edgefleet:examples"

# C0 and C1 controls except line feed and tab, DEL, line separators, bidirectional overrides, and
# halves of surrogate pairs.
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file that the papers speak of."""

    path: str
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure as it was written: of what kind, of which variant, and its 95 % interval if any."""

    kind: str
    value: str
    variant: str = ""
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Data that went into a model or its measurement; the digest is that of the file, if known."""

    name: str
    description: str = ""
    sha256: Digest | None = None
    examples: int | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a publisher says of a model, and what was measured. Empty is not said.

    `created` is RFC 3339; `tools` maps the tools that made the files to their versions; `inputs`
    and `outputs` are written as people read them (`input float32[any, 64]`).
    """

    name: str
    version: str
    created: str
    serial: str
    description: str
    task: str
    licence: str
    authors: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    datasets: tuple[Dataset, ...]
    metrics: tuple[Metric, ...]
    intended_use: tuple[str, ...]
    limitations: tuple[str, ...]
    files: tuple[FileDigest, ...]
    tools: dict[str, str]


@dataclass(frozen=True, slots=True)
class Material:
    """Something that a build was made from, by its digest."""

    name: str
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the files of a bundle come from.

    `parameters` are flat: `recipe.golden.vectors` to `16`; strings as they are, the rest as JSON.
    """

    build_type: str
    builder: str
    versions: dict[str, str]
    started: str
    invocation: str
    parameters: dict[str, str]
    materials: tuple[Material, ...]
    files: tuple[FileDigest, ...]

    @property
    def source(self) -> Material | None:
        """The model that came in."""
        return next((one for one in self.materials if one.name == "source"), None)


def parse_card(raw: bytes, *, what: str = SBOM) -> ModelCard:
    """The model card in a CycloneDX bill of materials.

    Raises:
        Malformed: not strict JSON, not CycloneDX 1.6 of a machine-learning model, a field of
            another type, or a text with control characters.
    """
    bom = codec.decode(formats.Bom, _plain(raw, what), what=what, unknown=True)
    if (bom.bomFormat, bom.specVersion) != (BOM_FORMAT, SPEC_VERSION):
        raise Malformed(
            f"{what}: {bom.bomFormat[:40]!r} {bom.specVersion[:40]!r}, "
            f"{BOM_FORMAT} {SPEC_VERSION} is read here"
        )
    model = bom.metadata.component
    if model.type != MODEL_TYPE:
        raise Malformed(f"{what}: it describes a {model.type[:40]!r}, not a {MODEL_TYPE}")
    card = model.modelCard
    return ModelCard(
        name=model.name,
        version=model.version,
        created=bom.metadata.timestamp,
        serial=bom.serialNumber,
        description=model.description,
        task=card.modelParameters.task,
        licence=" AND ".join(one.name for one in model.licenses),
        authors=tuple(one.name for one in bom.metadata.authors),
        inputs=tuple(one.format for one in card.modelParameters.inputs),
        outputs=tuple(one.format for one in card.modelParameters.outputs),
        datasets=tuple(_dataset(one, what) for one in card.modelParameters.datasets),
        metrics=tuple(_metric(one) for one in card.quantitativeAnalysis.performanceMetrics),
        intended_use=card.considerations.useCases,
        limitations=card.considerations.technicalLimitations,
        files=tuple(
            FileDigest(one.name, _sha256(one, what)) for one in bom.components if one.type == "file"
        ),
        tools={one.name: one.version for one in bom.metadata.tools.components},
    )


def parse_provenance(raw: bytes, *, what: str = PROVENANCE) -> Provenance:
    """The origin that an in-toto statement with a SLSA v1 predicate tells.

    Raises:
        Malformed: not strict JSON, another statement or predicate, a field of another type, a
            digest that is none, or a text with control characters.
    """
    value = _plain(raw, what)
    statement = codec.decode(formats.Statement, value, what=what, unknown=True)
    if (statement._type, statement.predicateType) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise Malformed(
            f"{what}: a {statement.predicateType[:80]!r}, {PREDICATE_TYPE} is read here"
        )
    definition, details = statement.predicate.buildDefinition, statement.predicate.runDetails
    return Provenance(
        build_type=definition.buildType,
        builder=details.builder.id,
        versions=details.builder.version,
        started=details.metadata.startedOn,
        invocation=details.metadata.invocationId,
        parameters=_flat(_parameters(value, what)),
        materials=tuple(
            Material(one.name, _digest(one.digest.get("sha256", ""), what))
            for one in definition.resolvedDependencies
        ),
        files=tuple(
            FileDigest(one.name, _digest(one.digest.get("sha256", ""), what))
            for one in statement.subject
        ),
    )


def differing(files: tuple[FileDigest, ...], manifest: Manifest) -> tuple[str, ...]:
    """The paths of which papers say what `bundle.json` does not: other bytes, or no such file."""
    signed = {file.path: file.sha256 for file in manifest.files}
    return tuple(one.path for one in files if signed.get(one.path) != one.sha256)


def is_plain(text: str) -> bool:
    """Whether a text has no characters that act on a terminal or turn a line around."""
    return _ACTS.search(text) is None


def _plain(raw: bytes, what: str) -> Json:
    value = canonical.parse_message(raw, what=what)
    _refuse_acting(value, what)
    return value


def _refuse_acting(value: Json, what: str) -> None:
    if isinstance(value, str):
        if not is_plain(value):
            raise Malformed(f"{what}: a text holds control characters")
    elif isinstance(value, list):
        for item in value:
            _refuse_acting(item, what)
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_acting(key, what)
            _refuse_acting(item, what)


def _dataset(data: formats.Data, what: str) -> Dataset:
    told = {one.name: one.value for one in data.contents.properties}
    digest, examples = told.get(SHA256_PROPERTY), told.get(EXAMPLES_PROPERTY)
    if examples is not None and not re.fullmatch(r"[0-9]{1,15}", examples):
        raise Malformed(f"{what}: {EXAMPLES_PROPERTY} is {examples[:40]!r}")
    return Dataset(
        data.name,
        data.description,
        None if digest is None else _digest(digest, what),
        None if examples is None else int(examples),
    )


def _metric(metric: formats.Performance) -> Metric:
    between = metric.confidenceInterval
    return Metric(metric.type, metric.value, metric.slice, between.lowerBound, between.upperBound)


def _sha256(component: formats.Component, what: str) -> Digest:
    found = [one.content for one in component.hashes if one.alg == "SHA-256"]
    return _digest(found[0] if found else "", f"{what}: {component.name[:80]}")


def _digest(text: str, what: str) -> Digest:
    if not is_digest(text):
        raise Malformed(f"{what}: a SHA-256 is missing, or is not 64 lower-case hex digits")
    return Digest(text)


def _parameters(value: Json, what: str) -> Json:
    """`externalParameters` of a statement that was decoded already."""
    for name in ("predicate", "buildDefinition", "externalParameters"):
        if not isinstance(value, dict) or not isinstance(value.get(name), dict):
            raise Malformed(f"{what}: {name} is missing, or is not an object")
        value = value[name]
    return value


def _flat(value: Json, at: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, item in value.items():
            found |= _flat(item, f"{at}.{key}" if at else key)
        return found
    return {at: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
