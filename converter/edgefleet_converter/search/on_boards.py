"""How fast candidates of a search are on boards, where the recipe names some. [recipe-15.5]"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgefleet_contract.bundle import Digest, Format, Variant, sha256
from edgefleet_contract.measuring import ANY_ANSWER_E6, MAX_CANDIDATES, Candidate
from edgefleet_converter.bench import Bench, specs
from edgefleet_converter.boards.asking import Asker
from edgefleet_converter.boards.figures import BoardReport, first_trouble, slowest_p50
from edgefleet_converter.boards.packing import Pack
from edgefleet_converter.search.figures import CandidateReport

_MODEL, _GOLDEN = "model", "golden.npz"


@dataclass(frozen=True, slots=True)
class Speeds:
    """For each candidate: its time on the slowest board, µs, or why it may not be taken."""

    p50_us: tuple[float | None, ...]
    troubles: tuple[str, ...]
    boards: tuple[BoardReport, ...]


def sendable(found: Sequence[CandidateReport]) -> Sequence[CandidateReport]:
    """As many as one job takes: those inside the budget first, of them the smallest."""
    return sorted(found, key=lambda one: (bool(one.outside), one.size_zstd))[:MAX_CANDIDATES]


def speeds(
    bench: Bench,
    asker: Asker,
    kind: Format,
    models: Sequence[bytes],
    inputs: Path,
    runtimes: dict[str, str],
) -> Speeds:
    """What the boards say of these model files, each of which takes `inputs`."""
    pack = _pack(bench, kind, models, inputs, runtimes)
    found = asker.ask(pack, bench.progress)
    of_each = [[board.models[one.name] for board in found] for one in pack.candidates]
    return Speeds(
        tuple(slowest_p50(one) for one in of_each),
        tuple(first_trouble(one) for one in of_each),
        tuple(board.report for board in found),
    )


def _pack(
    bench: Bench, kind: Format, models: Sequence[bytes], inputs: Path, runtimes: dict[str, str]
) -> Pack:
    files: dict[str, Path] = {"inputs.npz": inputs}
    golden: dict[str, Path] = {}
    for index, raw in enumerate(models):
        files[f"model.{index}"] = bench.scratch / f"sent.{index}"
        files[f"model.{index}"].write_bytes(raw)
        golden[f"golden.{index}.npz"] = bench.scratch / f"sent.{index}.npz"
    says = bench.task(
        "make_ready", "making candidates ready", files, golden, format=kind.value, count=len(models)
    )
    told = says["models"]
    assert isinstance(told, list)
    candidates: list[Candidate] = []
    places: dict[Digest, Path] = {}
    for index, (raw, one) in enumerate(zip(models, told, strict=True)):
        assert isinstance(one, dict)
        vectors = golden[f"golden.{index}.npz"]
        digests = {_MODEL: sha256(raw), _GOLDEN: sha256(vectors.read_bytes())}
        places |= {digests[_MODEL]: files[f"model.{index}"], digests[_GOLDEN]: vectors}
        variant = Variant(
            name=f"c{index}",
            format=kind,
            precision="int8",
            model=_MODEL,
            golden=_GOLDEN,
            max_abs_err_e6=ANY_ANSWER_E6,
            inputs=specs(one["inputs"]),
            outputs=specs(one["outputs"]),
            runtimes=runtimes,
        )
        candidates.append(Candidate(variant.name, variant, digests))
    return Pack(tuple(candidates), places)
