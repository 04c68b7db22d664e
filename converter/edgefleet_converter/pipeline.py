"""A build from end to end: a model, a recipe and a key in; a signed bundle and its report out.

The shell of the room: files move between worker processes, the cores (`gate`, `metrics`, `golden`)
say what to make of the answers. Nothing stands in the output folder until all of it does.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Final

from edgefleet_contract import __version__
from edgefleet_contract.bundle import Manifest, Role, is_name, sha256
from edgefleet_contract.cards import PROVENANCE, SBOM
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import Signer
from edgefleet_converter.bench import Bench, Progress
from edgefleet_converter.labels import find_labels
from edgefleet_converter.opening import Opened, open_source
from edgefleet_converter.pack import describe_files, finish, refuse_existing, staging
from edgefleet_converter.program import LABELS
from edgefleet_converter.provenance import render_provenance
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.report import DataFile, Report, VariantReport, render_report
from edgefleet_converter.sbom import render_sbom
from edgefleet_converter.setting import refuse_unlike, set_up
from edgefleet_converter.variants import make_variant

AGENT_MIN: Final = "0.1.0"
LAST_SECOND: Final = 253_402_300_799  # of the year 9999, the last that RFC 3339 can write
REPORT: Final = "report.json"
_TOOLS: Final = (
    *("onnx", "onnxruntime", "onnxslim", "ai-edge-litert", "ai-edge-quantizer"),
    *("scikit-learn", "skl2onnx", "numpy"),
)


@dataclass(frozen=True, slots=True)
class Built:
    """A finished bundle: where it is, what it says, what was measured."""

    path: Path
    manifest: Manifest
    report: Report


def build(
    source: Path | str,
    recipe: Recipe,
    *,
    out: Path | str,
    model: str,
    version: int,
    key: Signer,
    created: int | None = None,
    trust_pickle: bool = False,
    progress: Progress = lambda _: None,
) -> Built:
    """The signed bundle of a model, written to `out/<model>-<version>/`.

    Args:
        source: a model file; its kind is told by its content.
        recipe: see `edgefleet_converter.recipe`.
        out: the folder of bundles.
        model: its name in the fleet.
        version: rises with every release.
        key: the publisher's, ECDSA.
        created: seconds since 1970; by default SOURCE_DATE_EPOCH, or now.
        trust_pickle: a pickle may run any code while it loads; say True only for your own files.
        progress: told what is being done.

    Raises:
        OperatorError: something that a person can mend; nothing is written then.
    """
    _check_names(model, version, key)
    name = f"{model}-{version}"
    target = Path(out) / name
    refuse_existing(target)
    stamp = _checked(_created() if created is None else created)
    with tempfile.TemporaryDirectory(prefix="edge-convert-") as scratch:
        bench = Bench(recipe, Path(scratch), progress)
        opened = open_source(bench, Path(source), trust_pickle=trust_pickle)
        labels = find_labels(recipe, opened.named, opened.answers)
        truth = opened.held_out.classes(labels, opened.answers)
        with staging(Path(out), name) as folder:
            setting, roles = set_up(recipe, opened, labels, folder)
            made = [
                make_variant(bench, opened, setting, one, folder, truth) for one in recipe.targets
            ]
            refuse_unlike(tuple(one.variant for one in made))
            roles |= {path: role for one in made for path, role in one.roles.items()}
            report = _report(Path(source), opened, model, version, tuple(m.told for m in made))
            (folder / REPORT).write_bytes(render_report(report))
            roles[REPORT] = Role.REPORT
            manifest = Manifest(
                model=model,
                version=version,
                created=stamp,
                agent_min=AGENT_MIN,
                variants=tuple(one.variant for one in made),
                files=describe_files(folder, roles),
                labels=LABELS if labels else None,
            )
            card = render_sbom(manifest, report, recipe.card)
            origin = render_provenance(
                manifest, report, recipe, source=Path(source).name, trust_pickle=trust_pickle
            )
            (folder / SBOM).write_bytes(card)
            (folder / PROVENANCE).write_bytes(origin)
            roles |= {SBOM: Role.SBOM, PROVENANCE: Role.PROVENANCE}
            manifest = replace(manifest, files=describe_files(folder, roles))
            finish(folder, manifest, key, target)
    return Built(target, manifest, report)


def _check_names(model: str, number: int, key: Signer) -> None:
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


def _created() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return int(time.time())
    if not text.isdigit():
        raise OperatorError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return int(text)


def _checked(created: int) -> int:
    if not 0 <= created <= LAST_SECOND:
        raise OperatorError(f"created {created}: 0 to {LAST_SECOND} seconds since 1970")
    return created


def _report(
    source: Path, opened: Opened, model: str, number: int, variants: tuple[VariantReport, ...]
) -> Report:
    raw = source.read_bytes()
    return Report(
        model=model,
        version=number,
        source_kind=opened.kind.value,
        source=DataFile(sha256(raw), len(raw)),
        calibration=opened.calibration.described if opened.calibration else None,
        held_out=opened.held_out.described,
        parity={f"{kind}-float32": one.parity for kind, one in opened.models.items()},
        variants=variants,
        tools={
            "edgefleet": __version__,
            "python": platform.python_version(),
            **_tool_versions(),
        },
    )


def _tool_versions() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
