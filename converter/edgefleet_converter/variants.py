"""From a float model to one finished variant: quantized, judged, with golden vectors, measured."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import Format, Limits, Role, TensorSpec, Variant
from edgefleet_contract.graph import Program
from edgefleet_converter import gate, golden, metrics
from edgefleet_converter.arrays import Arrays, load_tensors, write_npz
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Answers, Bench, number
from edgefleet_converter.details import find_clipping, find_sensitivity
from edgefleet_converter.drift_file import write_drift
from edgefleet_converter.finishing import finish_model
from edgefleet_converter.fitting import fit
from edgefleet_converter.float_models import FloatModel
from edgefleet_converter.golden_pool import kept, model_pool
from edgefleet_converter.judging import Seen, judge
from edgefleet_converter.opening import Opened
from edgefleet_converter.recipe import Headroom
from edgefleet_converter.report import Measured, VariantReport
from edgefleet_converter.runners import Kernels
from edgefleet_converter.search.figures import SearchReport
from edgefleet_converter.targets import Precision, Target
from edgefleet_converter.whole_variants import Setting, TriedWhole, try_whole

RUNTIMES: Final = {
    Format.ONNX: {"onnxruntime": "1.19.0"},
    Format.TFLITE: {"litert": "2.0.0", "tflite-runtime": "2.14.0"},
}


@dataclass(frozen=True, slots=True)
class Made:
    """A variant in the bundle's folder: its entry, its figures, the roles of its files."""

    variant: Variant
    told: VariantReport
    roles: dict[str, Role]


@dataclass(frozen=True, slots=True)
class Tried:
    """A model that was tried: what it takes and gives, its golden vectors, its cost.

    `taken` and `given` are what went in and came out, for all held-out examples, `vectors` for the
    golden ones; `classes` what clients read out of it.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    taken: Arrays
    given: Arrays
    vectors: tuple[Arrays, Arrays]
    chosen: golden.Chosen
    kernels: tuple[str, ...]
    classes: NDArray[np.int64] | None
    measured: Measured | None
    program: Program | None = None


def make_variant(
    bench: Bench,
    opened: Opened,
    setting: Setting,
    target: Target,
    folder: Path,
    truth: NDArray[np.int64] | None,
) -> Made:
    """Write a target into its own folder below `folder`.

    Args:
        bench: does the work.
        opened: the float models and the examples.
        setting: the steps around the model, and what clients send.
        target: what to make.
        folder: of the bundle.
        truth: the class of each held-out example, [N], if it is known.

    Raises:
        OperatorError: it cannot be made, or costs more than the budget allows.
    """
    kind = target.kind
    base = opened.as_is if target.is_as_is else opened.models[kind]
    assert base is not None  # what the target asks for was opened
    name, vectors = f"{target}/model.{kind}", f"{target}/golden.npz"
    path = folder / name
    path.parent.mkdir()
    quantum, searched, precision = _write_model(bench, opened, target, base, path, truth)
    answers = None
    if base.answers is not None:
        answers = bench.run(kind, path, what=f"running {target}")
        gate.refuse_not_finite(answers.arrays, what=str(target))
        levels = Precision.INT8.levels if base.answers.is_int8 else levels_of(target)
        if levels:
            of_file = max(quantum, answers.quantum)
            quantum = golden.output_quantum(answers.arrays, of_file, levels)
    if setting.is_needed(answers):
        tried = _whole(try_whole(bench, setting, kind, (name, path), answers, quantum))
    else:
        assert answers is not None  # a stateful model needs a program
        tried = _plain(bench, kind, path, answers, quantum, setting.classes)
    write_golden(folder / vectors, *tried.vectors)
    seen = Seen(tried.given, tried.classes, tried.program is not None)
    figures = judge(bench, setting, target, base, answers, seen, truth)
    drift = _drift_file(bench, setting, target, folder, tried)
    needs = bench.needs(kind, path)
    finished = finish_model(bench, target, path, answers, has_steps=tried.program is not None)
    raw = b"".join(place.read_bytes() for place in (path, *finished.weights))
    told = VariantReport(
        name=target.value,
        size=len(raw),
        size_gzip=len(gzip.compress(raw, compresslevel=6, mtime=0)),
        sqnr_db=figures.sqnr_db,
        max_abs_err=figures.max_abs_err,
        golden_vectors=len(tried.chosen.rows),
        golden_inputs=bench.recipe.golden.inputs.value,
        golden_max_abs_err=tried.chosen.max_abs_err_e6 / 1e6,
        kernels=tried.kernels,
        golden_floor=tried.chosen.floor,
        strays=dict(zip(tried.kernels[1:], tried.chosen.strays, strict=True)),
        drift_bytes=(folder / drift).stat().st_size if drift else None,
        passes=finished.passes,
        flips=figures.flips,
        accuracy_float=figures.before,
        accuracy=figures.after,
        agreement=figures.agreement,
        measured=tried.measured,
        search=searched,
        sensitivity=find_sensitivity(bench, opened, target, searched),
        histograms=find_clipping(bench, opened, target, path),
    )
    fitting = fit(
        kind,
        needs,
        RUNTIMES[kind],
        bench.recipe.hardware.wanted,
        what=str(target),
        ram_mib=tried.measured.ram_mib if tried.measured else 0.0,
    )
    came_int8 = base.answers is not None and base.answers.is_int8
    variant = Variant(
        name=target.value,
        format=kind,
        precision=Precision.INT8 if came_int8 else precision or Precision.FLOAT32,
        model=name,
        golden=vectors,
        max_abs_err_e6=tried.chosen.max_abs_err_e6,
        inputs=tried.inputs,
        outputs=tried.outputs,
        runtimes=fitting.runtimes | finished.runtimes,
        hw=(finished.optimized_for,) if finished.optimized_for else fitting.hw,
        limits=limits_of(tried.measured, bench.recipe.limits),
        program=tried.program,
        drift=drift,
        optimized_for=finished.optimized_for,
    )
    roles = {name: Role.MODEL, vectors: Role.GOLDEN}
    roles |= {f"{target}/{place.name}": Role.WEIGHTS for place in finished.weights}
    return Made(variant, told, roles | ({drift: Role.DRIFT} if drift else {}))


def _drift_file(
    bench: Bench, setting: Setting, target: Target, folder: Path, tried: Tried
) -> str | None:
    """Write what went in and came out as histograms: its path; None where none was made.

    It is of the variant itself: what int8 gives is distributed in another way than what the float
    model gives, and that is no drift of the data.
    """
    kept = {pair.input for pair in setting.sequence.state}
    hidden = {pair.output for pair in setting.sequence.state}
    taken = [(s, a) for s, a in zip(tried.inputs, tried.taken, strict=True) if s.name not in kept]
    given = [
        (s, a) for s, a in zip(tried.outputs, tried.given, strict=True) if s.name not in hidden
    ]
    labels, wish = setting.labels, bench.recipe.drift
    calls = bool(setting.sequence)
    return write_drift(folder, str(target), taken, given, labels=labels, wish=wish, calls=calls)


def _plain(
    bench: Bench,
    kind: Format,
    path: Path,
    answers: Answers,
    quantum: float,
    classes: NDArray[np.int64] | None,
) -> Tried:
    """A model alone: clients send what it takes, and get what it gives."""
    pool = model_pool(bench, kind, path, answers, classes)
    chosen = golden.choose(
        pool.given,
        tuple(pool.kernels.values()),
        count=bench.recipe.golden.vectors,
        quantum=quantum,
        batch=answers.inputs[0].shape[0],
        held_out=pool.held_out,
    )
    return Tried(
        answers.inputs,
        answers.outputs,
        load_tensors(bench.scratch / HELD_OUT, "input"),
        answers.arrays,
        kept(pool, chosen.rows, answers.arrays),
        chosen,
        (Kernels.DEFAULT.value, *pool.kernels),
        metrics.decide(answers.arrays[0]),
        bench.measure(kind, path, what=f"measuring {path.parent.name}"),
    )


def _whole(tried: TriedWhole) -> Tried:
    answers = tried.answers
    return Tried(
        answers.inputs,
        answers.outputs,
        answers.taken,
        answers.arrays,
        tried.vectors,
        tried.chosen,
        (Kernels.DEFAULT.value, *tried.kernels),
        tried.classes,
        tried.measured,
        tried.program,
    )


def write_golden(path: Path, taken: Arrays, given: Arrays) -> None:
    """The golden vectors: what goes in and the answers."""
    inputs = {f"input.{i}": array for i, array in enumerate(taken)}
    outputs = {f"output.{i}": array for i, array in enumerate(given)}
    write_npz(path, inputs | outputs)


def limits_of(measured: Measured | None, room: Headroom) -> dict[str, Limits]:
    """The signed envelope: what was measured, with room, for the hardware that measured it."""
    if measured is None:
        return {}
    limits = Limits(
        ram_mib=round(measured.ram_mib) + room.ram_extra_mib,
        load_ms=max(room.load_floor_ms, round(room.load_factor * measured.load_ms)),
        p95_us=max(room.p95_floor_ms * 1000, round(room.p95_factor * measured.p95_us)),
    )
    return {measured.hardware: limits}


def _write_model(
    bench: Bench,
    opened: Opened,
    target: Target,
    base: FloatModel,
    path: Path,
    truth: NDArray[np.int64] | None,
) -> tuple[float, SearchReport | None, Precision | None]:
    """Put the model file in place: the quantum that the quantizer named, else 0; its search; and
    what it computes with, None where that is what came in."""
    kind = target.kind
    if not target.is_quantized or (base.answers is not None and base.answers.is_int8):
        path.write_bytes(base.path.read_bytes())
        return 0.0, None, target.precision
    if bench.recipe.search.enabled and target.is_int8:
        from edgefleet_converter.search.hunt import hunt

        found = hunt(bench, opened, target, truth)
        path.write_bytes(found.model)
        dynamic = Precision.DYNAMIC if found.is_dynamic else target.precision
        return found.quantum, found.report, dynamic
    files = {f"model.{kind}": base.path}
    if target.needs_calibration:
        files["calibration.npz"] = bench.scratch / CALIBRATION
    says = bench.task(
        f"make_{kind}",
        f"quantizing {target}",
        files,
        {f"made.{kind}": path},
        way=target.precision,
    )
    return number(says["quantum"]), None, target.precision


def levels_of(target: Target) -> int:
    """How many steps a value between the layers of a target has; 0: they are float32."""
    return target.precision.levels if target.precision else 0
