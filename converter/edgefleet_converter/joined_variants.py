"""A variant of a join: the whole graph in one format, tried on examples of all its inputs."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import (
    Digest,
    Format,
    Role,
    TensorSpec,
    Variant,
    parse_version,
    sha256,
)
from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.graph import MODEL, Node, Program, check_graph
from edgefleet_converter import gate, golden, metrics, wholes
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.bench import Bench
from edgefleet_converter.decisions import decided
from edgefleet_converter.drift_file import write_drift
from edgefleet_converter.examples import Examples
from edgefleet_converter.golden_pool import kept, whole_pool
from edgefleet_converter.join_recipe import JoinRecipe
from edgefleet_converter.labels import check_width
from edgefleet_converter.parts import Part, Parts, part_of
from edgefleet_converter.program import Files, place_files
from edgefleet_converter.program_runner import Whole
from edgefleet_converter.report import VariantReport
from edgefleet_converter.runners import Kernels
from edgefleet_converter.variants import RUNTIMES, Made, limits_of, write_golden
from edgefleet_converter.wholes import WholeAnswers, input_spec

_NO_STATE = wholes.Sequence()


@dataclass(frozen=True, slots=True)
class Joined:
    """What the variants of a join share: the wish, what was opened for it, data, and labels."""

    wish: JoinRecipe
    parts: Parts
    held_out: Examples
    labels: tuple[str, ...]


def make_joined(
    bench: Bench, joined: Joined, kind: Format, folder: Path, first: WholeAnswers | None
) -> tuple[Made, WholeAnswers]:
    """The whole in a format, written below `folder`; agreement is with what the first one answered.

    Raises:
        OperatorError: a model has no such variant, the graph does not hold together, or a step
            cannot work on an example, which is named.
    """
    wish = joined.wish
    parts = {name: part_of(wish, joined.parts, name, kind) for name in wish.models}
    nodes = _nodes(joined, parts)
    sent = _sent(nodes)
    examples = joined.held_out.ordered(sent, what="held-out")
    try:
        check_graph(nodes, sent, wish.outputs, "nodes")
    except Malformed as error:
        raise OperatorError(error.message) from None
    roles, is_int8 = _lay_parts(bench, parts, kind, folder)
    paths = {n.file: folder / n.file for n in nodes if n.file}
    inputs = _inputs(joined, parts, sent, examples)
    whole = Whole(kind, nodes, inputs, wish.outputs, paths)
    answers = wholes.run_whole(bench, whole, examples.inputs, _NO_STATE, what=f"running {kind}")
    gate.refuse_not_finite(answers.arrays, what=str(kind))
    classes = decided(answers.arrays, joined.labels)
    are_named = any(step.takes_labels for step in wish.steps)
    if joined.labels and not are_named and not golden.is_exact(answers.arrays[0]):
        check_width(joined.labels, answers.arrays[0], "the bundle")
    truth = joined.held_out.classes(joined.labels, None)
    models = [node.file for node in nodes if node.op == MODEL]
    quanta = {path: answers.quantum(path, is_int8=is_int8[path]) for path in models}
    known = classes if truth is None else truth
    pool = whole_pool(bench, whole, answers, _NO_STATE, examples.inputs, quanta, known)
    chosen = golden.choose_whole(
        pool.given,
        tuple(pool.kernels.values()),
        pool.nudges,
        count=wish.golden.vectors,
        classes=decided(pool.given, joined.labels),
        batch=answers.batch,
        held_out=pool.held_out,
    )
    write_golden(folder / f"{kind}/golden.npz", *kept(pool, chosen.rows, answers.arrays))
    roles[f"{kind}/golden.npz"] = Role.GOLDEN
    drift = write_drift(
        folder,
        kind.value,
        list(zip(answers.inputs, examples.inputs, strict=True)),
        list(zip(answers.outputs, answers.arrays, strict=True)),
        labels=joined.labels,
        wish=wish.drift,
    )
    if drift is not None:
        roles[drift] = Role.DRIFT
    measured = wholes.measure_whole(bench, whole, answers, _NO_STATE, what=f"measuring {kind}")
    before = None if first is None else decided(first.arrays, joined.labels)
    raws = [(folder / path).read_bytes() for path in dict.fromkeys(models)]
    told = VariantReport(
        name=kind.value,
        size=sum(map(len, raws)),
        size_gzip=sum(len(gzip.compress(raw, compresslevel=6, mtime=0)) for raw in raws),
        sqnr_db=metrics.EXACT_DB,
        max_abs_err=0.0 if first is None else _gap(first.arrays, answers.arrays),
        golden_vectors=len(chosen.rows),
        golden_inputs=bench.recipe.golden.inputs.value,
        golden_max_abs_err=chosen.max_abs_err_e6 / 1e6,
        kernels=(Kernels.DEFAULT.value, *pool.kernels),
        accuracy=_share(classes, truth),
        agreement=_share(classes, before),
        measured=measured,
        drift_bytes=(folder / drift).stat().st_size if drift else None,
    )
    variant = Variant(
        name=kind.value,
        format=kind,
        precision="int8" if any(is_int8[path] for path in models) else "float32",
        model=models[0],
        golden=f"{kind}/golden.npz",
        max_abs_err_e6=chosen.max_abs_err_e6,
        inputs=tuple(_in_batches(spec, answers.batch) for spec in answers.inputs),
        outputs=answers.outputs,
        runtimes=_runtimes(kind, parts),
        limits=limits_of(measured, wish.limits),
        program=Program(nodes),
        drift=drift,
    )
    return Made(variant, told, roles), answers


def _lay_parts(
    bench: Bench, parts: dict[str, Part], kind: Format, folder: Path
) -> tuple[dict[str, Role], dict[str, bool]]:
    """The files of the parts in the bundle's folder: their roles, and which models are int8."""
    roles: dict[str, Role] = {}
    is_int8: dict[str, bool] = {}
    for part in parts.values():
        for place, file in part.files.items():
            copy_in(file.path, folder / place, signed=file.sha256)
            roles[place] = file.role
            if file.role is Role.MODEL:
                known = file.is_int8
                is_int8[place] = bench.is_int8(kind, folder / place) if known is None else known
    return roles, is_int8


def copy_in(path: Path, place: Path, *, signed: Digest | None = None) -> None:
    """Copy a file into the bundle's folder.

    Raises:
        OperatorError: it cannot be read, is not what was signed any more, or another file has its
            name.
    """
    try:
        raw = path.read_bytes()
        place.parent.mkdir(exist_ok=True)
        if place.exists() and place.read_bytes() != raw:
            raise OperatorError(f"two files would be called {place.name!r}")
        place.write_bytes(raw)
    except OSError as error:
        raise OperatorError(f"cannot copy {path}: {error.strerror}") from None
    if signed is not None and sha256(raw) != signed:
        raise OperatorError(f"{path} has changed since its bundle was verified")


def _nodes(joined: Joined, parts: dict[str, Part]) -> tuple[Node, ...]:
    wish = joined.wish
    files = Files(place_files(wish.steps), labels=bool(joined.labels))
    found: list[Node] = []
    for i, asked in enumerate(wish.nodes):
        if asked.step is None:
            found += parts[asked.model].nodes(asked, f"{i}.{asked.model}")
            continue
        step = asked.step
        path = files.of(step)
        found.append(Node(step.step, asked.inputs, asked.outputs, path, dict(step.settings)))
    return tuple(found)


def _sent(nodes: Sequence[Node]) -> tuple[str, ...]:
    """What no node gives: what clients send, in the order of use."""
    made: set[str] = set()
    found: dict[str, None] = {}
    for node in nodes:
        found |= {name: None for name in node.inputs if name not in made}
        made |= {*node.outputs}
    return tuple(found)


def _inputs(
    joined: Joined, parts: dict[str, Part], sent: tuple[str, ...], examples: Examples
) -> tuple[TensorSpec, ...]:
    """What clients send: as a bundle that takes it declares it, else as the examples are."""
    declared: dict[str, TensorSpec] = {}
    for asked in joined.wish.nodes:
        variant = parts[asked.model].variant if asked.model else None
        if variant is not None:
            for name, spec in zip(asked.inputs, variant.inputs, strict=False):
                declared[name] = TensorSpec(name, spec.dtype, spec.shape)
    return tuple(
        declared.get(name) or input_spec(name, array, -1)
        for name, array in zip(sent, examples.inputs, strict=True)
    )


def _in_batches(spec: TensorSpec, batch: int) -> TensorSpec:
    return spec if batch == -1 else replace(spec, shape=(batch, *spec.shape[1:]))


def _runtimes(kind: Format, parts: dict[str, Part]) -> dict[str, str]:
    """The runtimes that run every part, from the highest version that one asks for."""
    found = dict(RUNTIMES[kind])
    for part in parts.values():
        if part.variant is None:
            continue
        found = {
            name: max(lowest, part.variant.runtimes[name], key=parse_version)
            for name, lowest in found.items()
            if name in part.variant.runtimes
        }
    if not found:
        raise OperatorError(f"no runtime runs the {kind} variants of all {len(parts)} models")
    return found


def _share(
    classes: NDArray[np.int64] | None, wanted: NDArray[np.int64] | None
) -> metrics.Share | None:
    if classes is None or wanted is None:
        return None
    return metrics.wilson(int((classes == wanted).sum()), len(wanted))


def _gap(first: Arrays, second: Arrays) -> float:
    return max(
        [
            0.0,
            *(
                metrics.max_abs_err(a, b)
                for a, b in zip(first, second, strict=True)
                if not golden.is_exact(a) and a.shape == b.shape
            ),
        ]
    )
