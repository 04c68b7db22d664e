"""The end of every build: report, papers, manifest and signature around finished variants."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Final

from edgefleet_contract import __version__
from edgefleet_contract.bundle import Manifest, Role, Variant, is_name
from edgefleet_contract.cards import PROVENANCE, SBOM
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import Signer
from edgefleet_converter.card import Card
from edgefleet_converter.pack import describe_files, finish
from edgefleet_converter.program import LABELS
from edgefleet_converter.report import Report, render_report
from edgefleet_converter.sbom import render_sbom

AGENT_MIN: Final = "0.1.0"
LAST_SECOND: Final = 253_402_300_799  # of the year 9999, the last that RFC 3339 can write
REPORT: Final = "report.json"
_TOOLS: Final = (
    *("onnx", "onnxruntime", "onnxslim", "ai-edge-litert", "ai-edge-quantizer"),
    *("scikit-learn", "skl2onnx", "numpy"),
)

Origin = Callable[[Manifest], bytes]
"""What writes the provenance of a bundle whose files are those of the manifest."""


@dataclass(frozen=True, slots=True)
class Built:
    """A finished bundle: where it is, what it says, what was measured."""

    path: Path
    manifest: Manifest
    report: Report


def assemble(
    folder: Path,
    target: Path,
    *,
    report: Report,
    created: int,
    variants: tuple[Variant, ...],
    roles: dict[str, Role],
    card: Card,
    origin: Origin,
    key: Signer,
) -> Built:
    """Write what is missing into `folder`, sign it, and give it the name `target`.

    Args:
        folder: holds the files of `roles`.
        target: the bundle-to-be.
        report: of the build; names model and version.
        created: seconds since 1970.
        variants: in the publisher's order.
        roles: of all files that are there; the labels are `labels.txt`.
        card: what the publisher says.
        origin: writes the provenance.
        key: signs.

    Raises:
        OperatorError: the manifest says more than one may, or the disk failed.
    """
    (folder / REPORT).write_bytes(render_report(report))
    roles = {**roles, REPORT: Role.REPORT}
    try:
        manifest = Manifest(
            model=report.model,
            version=report.version,
            created=created,
            agent_min=AGENT_MIN,
            variants=variants,
            files=describe_files(folder, roles),
            labels=LABELS if LABELS in roles else None,
        )
    except Malformed as error:
        raise OperatorError(f"this cannot be a bundle: {error.message}") from None
    (folder / SBOM).write_bytes(render_sbom(manifest, report, card))
    (folder / PROVENANCE).write_bytes(origin(manifest))
    roles |= {SBOM: Role.SBOM, PROVENANCE: Role.PROVENANCE}
    manifest = replace(manifest, files=describe_files(folder, roles))
    finish(folder, manifest, key, target)
    return Built(target, manifest, report)


def check_names(model: str, number: int, key: Signer) -> None:
    """Refuse what cannot be the name, the version or the key of a bundle.

    Raises:
        OperatorError: saying which.
    """
    if not is_name(model):
        raise OperatorError(
            f"{model[:80]!r} cannot name a model",
            hint="lower-case letters, digits, '.', '_' and '-', at most 64",
        )
    if number < 1:
        raise OperatorError(f"version {number}: the lowest is 1")
    if not key.public.algorithm.startswith("ECDSA"):
        raise OperatorError(
            f"the key is {key.public.algorithm}; model.sig needs ECDSA",
            hint="edge-convert keys new PATH makes one",
        )


def stamp(created: int | None) -> int:
    """Seconds since 1970 to write as the date: those given, or SOURCE_DATE_EPOCH, or now.

    Raises:
        OperatorError: they are none.
    """
    if created is None:
        created = _environment_date()
    if not 0 <= created <= LAST_SECOND:
        raise OperatorError(f"created {created}: 0 to {LAST_SECOND} seconds since 1970")
    return created


def tool_versions() -> dict[str, str]:
    """What made the bundle, with versions."""
    found = {"edgefleet": __version__, "python": platform.python_version()}
    for name in _TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _environment_date() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return int(time.time())
    if not text.isdigit():
        raise OperatorError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return int(text)
