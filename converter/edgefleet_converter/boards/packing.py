"""A job for a board: the variants of a bundle's folder, or files that are not in one yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgefleet_contract.bundle import Digest, Role, Variant, sha256
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.measuring import MAX_CANDIDATES, Candidate, MeasureJob
from edgefleet_converter.recipe import Measure

_MOST_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Pack:
    """Candidates, and where their files are."""

    candidates: tuple[Candidate, ...]
    places: Mapping[Digest, Path]

    def job(self, wish: Measure, *, challenge: str = "") -> MeasureJob:
        """The job of all of them.

        Raises:
            OperatorError: they are too many for one.
        """
        if len(self.candidates) > MAX_CANDIDATES:
            raise OperatorError(f"{len(self.candidates)} models, {MAX_CANDIDATES} can be measured")
        return MeasureJob(
            self.candidates,
            repeat=wish.repeat,
            runs=wish.runs,
            seconds=_MOST_SECONDS,
            timeout_s=wish.timeout_s,
            challenge=challenge,
        )


def pack_variants(
    folder: Path, variants: Iterable[Variant], roles: Mapping[str, Role], labels: str | None
) -> Pack:
    """Variants as they lie in the folder of a bundle, whose files have these roles.

    Raises:
        OperatorError: a name cannot be one of a candidate.
    """
    candidates: list[Candidate] = []
    places: dict[Digest, Path] = {}
    for variant in variants:
        beside = variant.model.rpartition("/")[0] + "/"
        weights = [
            path for path, role in roles.items() if role is Role.WEIGHTS and path.startswith(beside)
        ]
        files: dict[str, Digest] = {}
        for path in (*variant.files, variant.golden, *weights, *filter(None, (labels,))):
            files[path] = sha256((folder / path).read_bytes())
            places[files[path]] = folder / path
        candidates.append(_candidate(variant, files, labels or ""))
    return Pack(tuple(candidates), places)


def _candidate(variant: Variant, files: dict[str, Digest], labels: str) -> Candidate:
    try:
        return Candidate(variant.name, variant, files, labels)
    except Malformed as error:
        raise OperatorError(error.message) from None
