"""Whether a bundle is good: signed, whole, its papers true, its models giving what was signed.

A model is run only when a trusted key signed it, and then in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgefleet_contract import codec
from edgefleet_contract.bundle import Manifest, Variant
from edgefleet_contract.canonical import Json
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.drift_reference import parse_reference
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.model_signature import VerifiedBundle
from edgefleet_converter.bench import Progress
from edgefleet_converter.isolation import run_task
from edgefleet_converter.papers import read_papers
from edgefleet_converter.recipe import Worker


@dataclass(frozen=True, slots=True)
class Ran:
    """How a variant did on its golden vectors; `problem` is empty where it may serve.

    `worst` is the largest difference, None where outputs could not be compared; `allowed` the
    signed tolerance.
    """

    name: str
    allowed: float
    problem: str
    vectors: int = 0
    worst: float | None = None
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a bundle that a trusted key signed and whose files are all there.

    `differing` are the paths of which its papers say something else; `ran` is empty where nothing
    was run; `unread` says what is wrong with drift references.
    """

    bundle: VerifiedBundle
    differing: tuple[str, ...]
    ran: tuple[Ran, ...]
    unread: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, in words; empty where nothing is."""
        papers = (
            f"the papers speak of another {path} than bundle.json does" for path in self.differing
        )
        return (
            *papers,
            *self.unread,
            *(f"{one.name}: {one.problem}" for one in self.ran if one.problem),
        )


def verify(
    root: Path, ring: KeyRing, *, run: bool = True, progress: Progress = lambda _: None
) -> Verdict:
    """What is found of a bundle.

    Args:
        root: its directory.
        ring: the keys that may have signed it.
        run: whether its models are run on their golden vectors.
        progress: told what is being done.

    Raises:
        OperatorError: it cannot be read.
        PeerError: it is not what a trusted key signed, or its papers are no papers.
    """
    progress("checking the signature and the files")
    found = verify_directory(root, ring)
    papers = read_papers(root, found.manifest)
    ran = []
    for one in found.manifest.variants if run else ():
        progress(f"running {one.name}")
        ran.append(run_golden(root, found.manifest, one))
    return Verdict(found, papers.differing, tuple(ran), tuple(_unread(root, found.manifest)))


def _unread(root: Path, manifest: Manifest) -> Iterator[str]:
    for variant in manifest.variants:
        if variant.drift is not None:
            try:
                parse_reference((root / variant.drift).read_bytes(), what=variant.drift)
            except Malformed as error:
                yield error.message


def run_golden(root: Path, manifest: Manifest, variant: Variant) -> Ran:
    """How a variant does on its golden vectors, on the runtime here."""
    files = [file.path for file in manifest.files_for(variant)]
    local = {path: f"file{i}" for i, path in enumerate(files)}
    job = {"variant": codec.encode(variant), "files": cast("dict[str, Json]", local)}
    allowed = variant.max_abs_err_e6 / 1e6
    try:
        says = run_task(
            "check_golden",
            what=f"running {variant.name}",
            limits=Worker(),
            inputs={local[path]: root / path for path in files},
            params={"job": job},
        )
    except OperatorError as error:
        return Ran(variant.name, allowed, error.message)
    worst, vectors = says["worst"], says["vectors"]
    off = float(worst) if isinstance(worst, int | float) else None
    problem = ""
    if off is None:
        problem = "an output is of another shape, text or kind than its golden one"
    elif off * 1e6 > variant.max_abs_err_e6 * (1 + 1e-6):  # the slack that a device gives
        problem = f"an output differs by {off:.6g} from its golden one, allowed are {allowed:.6g}"
    count = vectors if isinstance(vectors, int) else 0
    return Ran(variant.name, allowed, problem, count, off, str(says["runtime"]))
