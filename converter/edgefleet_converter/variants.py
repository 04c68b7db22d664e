"""From a float model to one finished variant: quantized, judged, with golden vectors, measured."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet_contract.bundle import Format, Limits, Role, Variant
from edgefleet_converter import gate, golden, metrics
from edgefleet_converter.arrays import write_npz
from edgefleet_converter.bench import CALIBRATION, Answers, Bench, number
from edgefleet_converter.metrics import Share
from edgefleet_converter.opening import FloatModel, Opened
from edgefleet_converter.recipe import Headroom, Target
from edgefleet_converter.report import Measured, VariantReport
from edgefleet_converter.runners import Kernels

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


def make_variant(
    bench: Bench, opened: Opened, target: Target, folder: Path, truth: NDArray[np.int64] | None
) -> Made:
    """Write a target into its own folder below `folder`.

    Args:
        bench: does the work.
        opened: the float models and the examples.
        target: what to make.
        folder: of the bundle.
        truth: the class of each held-out example, [N], if it is known.

    Raises:
        OperatorError: it cannot be made, or costs more than the budget allows.
    """
    kind = Format.TFLITE if target.is_tflite else Format.ONNX
    base = opened.models[kind]
    name, vectors = f"{target}/model.{kind}", f"{target}/golden.npz"
    path = folder / name
    path.parent.mkdir()
    quantum = _write_model(bench, target, kind, base, path)
    answers = bench.run(kind, path, what=f"running {target}")
    gate.refuse_not_finite(answers.arrays, what=str(target))
    if target.is_int8:
        quantum = golden.output_quantum(answers.arrays, max(quantum, answers.quantum))
    others = bench.other_kernels(kind, path)
    chosen = golden.choose(
        answers.arrays,
        tuple(others.values()),
        count=bench.recipe.golden.vectors,
        quantum=quantum,
        batch=answers.inputs[0].shape[0],
    )
    _write_golden(folder / vectors, opened, answers, chosen.rows)
    before, after, same, sqnr = _judge(bench, target, base, answers, truth)
    measured = bench.measure(kind, path, what=f"measuring {target}")
    raw = path.read_bytes()
    told = VariantReport(
        name=target.value,
        size=len(raw),
        size_gzip=len(gzip.compress(raw, compresslevel=6, mtime=0)),
        sqnr_db=sqnr,
        max_abs_err=max(
            metrics.max_abs_err(a, b)
            for a, b in zip(base.answers.arrays, answers.arrays, strict=True)
        ),
        golden_vectors=len(chosen.rows),
        golden_max_abs_err=chosen.max_abs_err_e6 / 1e6,
        kernels=(Kernels.DEFAULT.value, *others),
        accuracy_float=before,
        accuracy=after,
        agreement=same,
        measured=measured,
    )
    variant = Variant(
        name=target.value,
        format=kind,
        precision="int8" if target.is_int8 else "float32",
        model=name,
        golden=vectors,
        max_abs_err_e6=chosen.max_abs_err_e6,
        inputs=answers.inputs,
        outputs=answers.outputs,
        runtimes=dict(RUNTIMES[kind]),
        limits=limits_of(measured, bench.recipe.limits),
    )
    return Made(variant, told, {name: Role.MODEL, vectors: Role.GOLDEN})


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


def _write_model(bench: Bench, target: Target, kind: Format, base: FloatModel, path: Path) -> float:
    """Put the model file in place; the quantum that the quantizer named, else 0."""
    if not target.is_int8 or base.answers.is_int8:
        path.write_bytes(base.path.read_bytes())
        return 0.0
    says = bench.task(
        f"quantize_{kind}",
        f"quantizing {target}",
        {f"model.{kind}": base.path, "calibration.npz": bench.scratch / CALIBRATION},
        {f"int8.{kind}": path},
    )
    return number(says["quantum"])


def _judge(
    bench: Bench,
    target: Target,
    base: FloatModel,
    answers: Answers,
    truth: NDArray[np.int64] | None,
) -> tuple[Share | None, Share | None, Share | None, float]:
    """Accuracy before and after, agreement, SQNR; within the budget."""
    float_outputs, outputs = base.answers.arrays, answers.arrays
    before, after, same = None, None, None
    if truth is not None:
        before = metrics.accuracy(float_outputs[0], truth)
        after = metrics.accuracy(outputs[0], truth)
    if truth is not None or metrics.are_probabilities(float_outputs[0]):
        same = metrics.agreement(float_outputs[0], outputs[0])
    sqnr = min(metrics.sqnr_db(a, b) for a, b in zip(float_outputs, outputs, strict=True))
    drop = gate.accuracy_drop(before, after, same)
    gate.refuse_over_budget(drop, sqnr, bench.recipe.budget, what=str(target))
    return before, after, same, sqnr


def _write_golden(path: Path, opened: Opened, answers: Answers, rows: tuple[int, ...]) -> None:
    """The answers to the chosen rows. A row's answer does not depend on its batch."""
    chosen = list(rows)
    inputs = {f"input.{i}": array[chosen] for i, array in enumerate(opened.held_out.inputs)}
    outputs = {f"output.{i}": array[chosen] for i, array in enumerate(answers.arrays)}
    write_npz(path, inputs | outputs)
